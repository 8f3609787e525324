"""The module finds answers that a text states: the final answer, which is graded, and the first correct one.

The texts were written by models: every pattern here reads its text once, whatever it is.
"""
# ruff: noqa: RUF001

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

from o1p_jax.grading.answers import MAX_ANSWER, quick_equal
from o1p_jax.grading.notation import clean
from o1p_jax.grading.numbers import read_number
from o1p_jax.grading.thoughts import answer_part
from o1p_jax.grading.tree import plain_text


def final_answer(text: str, unclosed_thought: bool = False) -> str | None:
    r"""Returns the answer that a solution ends with, or None.

    The answer is the content of the last \boxed{} that holds something (of the last ones, where only 'and', 'or' or a
    comma parts them). Without one it is what the last statement says: '####', 'the answer is', 'A:'; or what stands
    under a heading 'Answer'; or what is bold in the last line. A clause behind the answer is cut off. Only what
    follows the thoughts counts (`thoughts.answer_part`).
    """
    text = answer_part(text, unclosed_thought)
    answer = _boxed(text)
    if answer is None:
        text = re.sub(r"\\(?:boxed|fbox)\{ {0,9}\}", "", text)
        answer = next((found for way in (_stated, _under_heading, _bold) if (found := way(text))), None)
    elif (
        _SENTENCE.search(answer) and r"\begin" not in answer
    ):  # \boxed{\text{The answer is } 5}, \boxed{36 \text{ in all, as we saw}}
        answer = _stated(plain_text(answer)) or _first_clause(plain_text(answer))
    answer = (answer or "").strip()
    return answer if 0 < len(answer) <= MAX_ANSWER else None


_SENTENCE = re.compile(r"[A-Za-z]{2,}[ ,}]{1,9}[A-Za-z]{2,}|\s\((?!mod|base)[A-Za-z]{2,}")


def stated(gold: str) -> str:
    """Returns the gold answer of a column's value, which may be a whole solution: then its boxed or final answer."""
    answer = _boxed(gold)
    if answer is None and ("####" in gold or len(gold) > MAX_ANSWER):
        answer = final_answer(gold)
    return gold if answer is None else answer.strip()


class _Box(NamedTuple):
    start: int  # of the command
    content: tuple[int, int]
    end: int


_BRACES = re.compile(
    r"\\(?:boxed|fbox)\s{0,99}(?:\{|(?P<bare>[-+]?\d[\d,./]{0,99}|[A-Za-z]\b|\\[A-Za-z]{1,20}(?:\{[^{}\n]{0,99}\}){0,2}))"
    r"|\\.|[{}]",
    re.DOTALL,
)


def _boxes(text: str) -> Iterator[_Box]:
    """Yields the boxes whose braces balance and that hold something, in the order of their ends; without braces too."""
    opened: list[tuple[int, int] | None] = []  # where each open brace's box and its content start, if it is a box's
    for token in _BRACES.finditer(text):
        if token["bare"]:
            yield _Box(token.start(), (token.start("bare"), token.end()), token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}":
            if opened and (box := opened.pop()) is not None and text[box[1] : min(token.start(), box[1] + 99)].strip():
                yield _Box(box[0], (box[1], token.start()), token.end())
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.start(), token.end()))


_BETWEEN = re.compile(r"[\s$]{0,9}(?:,|;|(?:,\s?)?(?:and|or)|\\text\{\s?(?:and|or)\s?\})[\s$]{0,9}")


def _boxed(text: str) -> str | None:
    """Returns the content of the last box, or the text of the last boxes where they are answers in a row; or None."""
    last: list[_Box] = []
    for box in _boxes(text):
        in_a_row = last and _BETWEEN.fullmatch(text[last[-1].end : min(box.start, last[-1].end + 40)])
        last = [*last, box] if in_a_row and len(last) < 20 else [box]
    if not last:
        return None
    contents = {text[slice(*box.content)].strip() for box in last}
    return text[last[0].start : last[-1].end] if len(contents) > 1 else text[slice(*last[-1].content)]


_LEAD = re.compile(
    r"(?P<hashes>####)"
    r"|\b(?:answers?\b|ans\b\.?)(?: to (?:the|this) (?:question|problem))?(?:\s{0,9}[*_]{0,3}\s{0,9})"
    r"(?:(?:is|are|was|equals|comes to|(?:would|will|should|must) be)\b|[:=])"
    r"|^[*_]{0,2}A[*_]{0,2}:",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICTS = re.compile(
    r"not\b|(?:in|correct|incorrect|right|wrong|hard|easy|simple|reasonable|valid|consistent|clear|unique|obvious|what"
    r"|found|obtained|indeed (?:correct|right)|the (?:same|one)|supposed|required|as follows)\b[^\d]*\Z",
    re.IGNORECASE,
)


_DOUBT = re.compile(
    r"\b(?:whether|if|unless|suppose|assume|assuming)\s(?:that\s)?(?:(?:the|my|our|this)\s)?(?:\w{1,9}\s)?\Z"
)


def _stated(text: str) -> str | None:
    """Returns what the last statement says that is an answer, not 'the answer is right' or a heading with hashes."""
    for lead in reversed(list(_LEAD.finditer(text))[-_MOST_STATEMENTS:]):
        if _DOUBT.search(text[max(lead.start() - 40, 0) : lead.start()]):
            continue
        line = _line(text, lead.end())
        if lead["hashes"]:
            rest = text[lead.end() : lead.end() + MAX_ANSWER].lstrip("#").lstrip().partition("\n")[2]
            if rest.strip() and read_number(clean(line)) is None:
                continue
        answer = _first_clause(_said_in(line) if lead[0].rstrip("*_ ").endswith(":") else line)
        if answer and not _VERDICTS.match(answer):
            return answer
    return None


_HEADING = re.compile(
    r"^[ \t]{0,9}(?:#{1,6}[ \t]{0,9})?[*_]{0,3}(?:the |my )?(?:final |correct )?answers?"
    r"[ \t]{0,9}:?[*_]{0,3}:?[ \t]{0,99}$",
    re.IGNORECASE | re.MULTILINE,
)
_BOUNDS = {"more", "less", "fewer", "least", "most", "between", "not", "under", "over", "above", "below", "no", "isn"}
_NUMERAL = re.compile(r"(?<![\w.])[-+]?(?:\\?\$)?\d[\d,]*(?:\.\d+)?")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*|__([^_\n]{1,200})__")


def _under_heading(text: str) -> str | None:
    """Returns what the line under the last heading 'Answer' says; of a sentence, its bold part or its only number."""
    headings = list(_HEADING.finditer(text))
    if not headings:
        return None
    return _first_clause(_said_in(_line(text, headings[-1].end())))


def _said_in(line: str) -> str:
    """Returns what a line answers: of a sentence the bold part, an equation's last side, or the only number."""
    if bold := _BOLD.search(line):
        return bold[1] or bold[2]
    numbers = list(_NUMERAL.finditer(line))
    before = re.findall("[A-Za-z]{2,}", line[: numbers[0].start()]) if numbers else []
    if len(before) < 2 or _BOUNDS.intersection(map(str.lower, before)):
        return line
    if len(numbers) == 1 or re.search(r"=\s*\S*\Z", line[: numbers[-1].start()]):
        return line[numbers[-1].start() :]
    return line


def _bold(text: str) -> str | None:
    """Returns the last bold part of the last line."""
    found = list(_BOLD.finditer(text.rstrip().rpartition("\n")[2][-2 * MAX_ANSWER :]))
    return _first_clause(found[-1][1] or found[-1][2]) if found else None


def _line(text: str, start: int) -> str:
    """Returns the first line from `start` on that says something; '>' at the beginning of a line marks a quotation."""
    for number, line in enumerate(islice(text[start : start + 4 * MAX_ANSWER].splitlines(), 20)):
        if line := (line.lstrip("> \t") if number else line).strip("*_`: \t"):
            line = line.removeprefix(r"\[").removeprefix("$$").strip()
            if line:
                return line
    return ""


_SENTENCE_END = re.compile(r"[.?](?=\s|\*|$)|!(?=\s*$)|(?<!\d)!(?=\s)")
_FILLER = re.compile(
    r"(?:therefore|thus|then|simply|just|indeed|clearly|now|still|hence|actually|given by|equal to|found to be|to be"
    r"|option|choice)\b[,: ]{1,9}",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r",?\s\((?!mod|base)(?=[A-Za-z]{2,})"
    r"|[,;]?\s(?:because|since|which|so|as|where|given|that|who|but|making|meaning|i\.e|namely|assuming"
    r"|for (?:all|any|every|each)|and (?:so|thus|hence|therefore))\b|,\s(?:and )?not\b"
    r"|,\s(?:the|an?|his|her|its|their|our|my)\s(?!.*\b(?:and|or)\b)"
    r"|\s(?:—|–|--|-)\s(?=[A-Za-z]{2,})(?!sqrt|pi|sin|cos|tan|log|ln)"
    r"|(?<=[\d$%)}A-Za-z]),\s(?=[A-Za-z]{2,})(?!and\b|or\b|sqrt|pi\b|infinity|oo\b)"
)


def _first_clause(line: str) -> str:
    """Returns the answer at the beginning of a sentence without the clause that explains it: '36, all told' is 36."""
    line = _SENTENCE_END.split(line[: 4 * MAX_ANSWER], maxsplit=1)[0].strip("*_` ")
    while filler := _FILLER.match(line):
        line = line[filler.end() :]
    for clause in _CLAUSE.finditer(line):
        head = line[: clause.start()]
        if head.count("{") != head.count("}"):
            continue  # inside an argument
        if clause[0].lstrip().startswith(",") and not clause[0].strip(", ") and not re.search(r"\d", head):
            continue  # 'Alice, Bob and Carol' is a list
        if head.strip():
            line = head
            break
    return line.strip("*_`: ")


_MOST_STATEMENTS = 2000
_STATEMENT = re.compile(
    r"(?:####|=|\b(?:answer|guess|result|solution)\b[^.\n]{0,20}?(?:\bis\b|\bbe\b|=|:))[\s*]{0,9}\$?"
    r"(?!\\boxed)(?P<value>(?>-?[\w\\{}^/]{1,200}(?:[.,]\d{1,200}){0,20}))(?![\w\\{}^/])"
    r"(?!\s{0,9}[-+*/^=])",  # not the middle of an equation
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(  # 'so that is 18.', 'the value of \(p\) is \(11\).'
    r"\b(?:is|are|be|equals|get|gives)\s{1,3}(?:\*\*|\$|\\\(){0,2}"
    r"(?P<value>-?\d[\d,]{0,30}(?:\.\d{1,30})?(?:/\d{1,30})?)(?=[.,;!?)*$\\]{1,6}(?:\s|\Z)|[ \t]{0,3}(?:\n|\Z))"
)


class Statement(NamedTuple):
    """A place of a text that states a value."""

    end: int
    value: str
    is_step: bool
    """Whether the value may be that of a step on the way: it ends an equation or a clause, or is called a result."""


def statements(text: str) -> list[Statement]:
    """Returns what the text states, in the order of the places.

    Recognised are boxes, '####', 'the answer (guess, result, solution) is ...', the end of an equation and a number
    that ends a clause ('that is 18.'), the first few thousand of each.
    """
    boxes = (Statement(box.end, text[slice(*box.content)], False) for box in _boxes(text))
    others = (
        Statement(match.end(), match["value"], match[0][0].lower() in "=rs") for match in _STATEMENT.finditer(text)
    )
    ends = (Statement(match.end(), match["value"], True) for match in _CLAUSE_END.finditer(text))
    return sorted(chain.from_iterable(islice(found, _MOST_STATEMENTS) for found in (boxes, others, ends)))


def first_answer(text: str, gold: str) -> int | None:
    """Returns where in `text`, in characters, the first correct answer ends; None when no statement is recognised.

    Outcome efficiency (arXiv 2412.21187, equation 1) needs the place. An answer in other words than `statements`
    recognises is found later, so that the place is an upper bound. The share of characters stands for the share of
    tokens. The text is read once and compared without algebra, so that no text takes long.
    """
    gold = stated(gold)
    return next((said.end for said in statements(text) if same_answer(said.value, gold)), None)


same_answer = lru_cache(maxsize=2**16)(quick_equal)  # a solution, and its problem's others, state the same values often
