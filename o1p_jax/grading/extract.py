"""The module finds answers that a text states: the final answer, which is graded, and the first correct one."""

import re
from functools import lru_cache

from o1p_jax.grading.answers import quick_equal
from o1p_jax.grading.thoughts import answer_part

_MAX_ANSWER = 1000  # characters; what is longer is not an answer


_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


_LEADS = tuple(
    re.compile(lead, re.IGNORECASE | re.MULTILINE)
    for lead in (
        r"####",  # GSM8K
        r"answer\s*(?:is|:|=)\s*:?",
        r"^A:",
    )
)


_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


def final_answer(text: str, unclosed_thought: bool = False) -> str | None:
    r"""Returns the answer that a solution ends with, or None.

    The answer is the content of the last \boxed{} whose braces balance; without one, what follows the last '####',
    'answer is' or 'A:'. Only what follows the thoughts counts (`thoughts.answer_part`).
    """
    text = answer_part(text, unclosed_thought)
    answer = _last_box(text)
    for lead in _LEADS:
        if answer is None and (found := list(lead.finditer(text))):
            line = text[found[-1].end() :].lstrip().partition("\n")[0]
            answer = _SENTENCE_END.split(line, maxsplit=1)[0].strip("* ")
    answer = (answer or "").strip()
    return answer if 0 < len(answer) <= _MAX_ANSWER else None


def _last_box(text: str) -> str | None:
    """Returns the content of the last box whose braces balance, or None.

    The text is read in one pass, so that a megabyte of open boxes costs no more than a megabyte of prose.
    """
    opened: list[int | None] = []  # where each open brace's content starts, when it is a box's
    last = None
    for token in _BRACES.finditer(text):
        if token[0] == "{":
            opened.append(None)
        elif token[0] == "}":
            if opened and (start := opened.pop()) is not None:
                last = start, token.start()
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append(token.end())
    return text[slice(*last)] if last else None


_STATEMENT = re.compile(
    r"\\boxed\{(?P<box>(?:[^{}]|\{[^{}]*\})*)\}"
    r"|(?:####|=|\b(?:answer|guess|result|solution)\b[^.\n]{0,20}?(?:\bis|=|:))\s*\**\s*\$?"
    r"(?!\\boxed)(?P<value>(?>-?[\w\\{}^/]+(?:[.,]\d+)*))(?!\s*[-+*/^=])",  # not the middle of an equation
    re.IGNORECASE,
)


def first_answer(text: str, gold: str) -> int | None:
    """Returns where in `text`, in characters, the first correct answer ends; None when no statement is recognised.

    Outcome efficiency (arXiv 2412.21187, equation 1) needs the place. Recognised are boxes, '####', 'the answer (guess,
    result, solution) is ...' and the end of an equation; an answer in other words is found later, so that the place is
    an upper bound. The share of characters stands for the share of tokens.
    """
    for match in _STATEMENT.finditer(text):
        if _equal(match["box"] or match["value"] or "", gold):
            return match.end()
    return None


_equal = lru_cache(maxsize=2**18)(quick_equal)  # a solution, and its problem's others, state the same values often
