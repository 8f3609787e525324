r"""An answer's structure is read: what kind of answer it is, and of which parts it consists.

`read` tries the kinds in the order of `_READERS`; what is none of them is a leaf: a number with a unit, words or an
expression. Parts are answers themselves, so that a list of points is a list of sequences of leaves.
"""

import re
from collections.abc import Callable

from o1p_jax.grading.figures import read_figures, read_ratio
from o1p_jax.grading.numbers import read_number
from o1p_jax.grading.tree import EQUALS, INEQUALITY, LIST_SEPARATOR, Answer, plain_text, split_top
from o1p_jax.grading.units import split_compound, split_unit

_INTEGERS = re.compile(  # 2 pi n, where n is an integer
    r",\s*(?:\\text\{ ?(?:where|for|with)(?: any)?(?: integers?)? ?\}|where|for(?: any)?)?\s*[a-z]\s*"
    r"(?:\\in\s*\\mathbb\{[ZN]\}|(?:\\text\{ ?)?is an(?:y)? integer(?: ?\})?)\Z"
)
_MOST_PARTS = 200
_MOST_DEPTH = 6


def read(text: str, depth: int = 0) -> Answer:
    """Returns the structure of a clean text."""
    text = _INTEGERS.sub("", text.strip())
    if french := re.fullmatch(r"([\[\]])([^\[\]]+,[^\[\]]+)([\[\]])", text):  # ]2, 5[ is (2, 5)
        text = f"{french[1].replace(']', '(')}{french[2]}{french[3].replace('[', ')')}"
    if inner := re.fullmatch(r"\\text\{([^{}]*)\}", text):
        text = inner[1].strip()
    if depth < _MOST_DEPTH and read_number(text) is None:
        for reader in _READERS:
            if (answer := reader(text, depth + 1)) is not None:
                return answer
    return Answer("leaf", text)


def _quantity(text: str, depth: int) -> Answer | None:
    """Recognises a number with its unit, whose commas and words part nothing: '$1,200', '2 hours and 5 minutes'."""
    simple = read_number(split_unit(text)[0]) is not None or split_compound(plain_text(text))
    return Answer("leaf", text) if simple else None


_ALL_REAL = re.compile(
    r"(?:x\s*(?:\\in|is|can be)\s*)?(?:the set of )?(?:all|any|every) (?:the )?real(?: number)?s?(?: x)?"
    r"(?: (?:except|other than|but)(?: for)? (?:x = ?)?(?P<holes>.+))?",
    re.IGNORECASE,
)


_ENVIRONMENT = re.compile(
    r"\s*(?P<left>[|(\[]?)\s*\\begin\s*\{(?P<name>aligned|gathered|split|cases|[pbvBV]?matrix|smallmatrix|array|rcases)\}"
    r"\s*(?:\{[lcr| ]*\})?"
    r"(?P<body>.*?)\\end\s*\{(?P=name)\}\s*(?P<right>[|)\]]?)\s*(?P<transposed>\^\s*\{?\s*(?:T|\\top)\s*\}?)?",
    re.DOTALL,
)


def _rows(text: str, depth: int) -> Answer | None:
    """Reads matrices and cases."""
    if not (found := _ENVIRONMENT.fullmatch(text)) or r"\begin" in found["body"]:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\[\]]*\])?|\\cr", found["body"].strip()) if row.strip()]
    if found["name"] in ("aligned", "gathered", "split"):
        return read(", ".join("".join(row) for row in rows), depth)
    if found["name"].endswith("cases") or (found["name"] == "array" and not found["left"]):
        return Answer("cases", text, tuple(_case(row, depth) for row in rows))
    if found["transposed"]:
        rows = [list(column) for column in zip(*rows, strict=False)]
    cells = tuple(Answer("sequence", "", tuple(read(cell, depth) for cell in row), "()") for row in rows)
    return Answer("matrix", text, cells, "|" if found["left"] == "|" or found["name"] == "vmatrix" else "()")


_CONDITION = re.compile(r"[,\s]*(?:if|for|when|where|otherwise|else)?(?:\s+all)?\s*", re.IGNORECASE)


def _case(row: list[str], depth: int) -> Answer:
    """Reads one row of cases: a value, and the condition under which it holds."""
    value, _, condition = " & ".join(row).partition("&")
    if not condition:
        words = re.split(r"\\text\{\s*(?:if|for|when)\s*\}|,|\b(?:if|for|when)\b", value, maxsplit=1)
        value, condition = words[0], words[1] if len(words) > 1 else ""
    if re.search(r"otherwise|else", condition):
        condition = "otherwise"
    condition = (
        _CONDITION.sub("", plain_text(condition).strip(" ,.;"), count=1) if condition != "otherwise" else condition
    )
    return Answer("sequence", "", (read(value.strip(" ,.;"), depth), read(condition, depth)), "case")


_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[a-zA-Z])\s*(?P<domain>\\in\s*\\mathbb\{\w\})?\s*[|:]\s*(?P<condition>.+?)\s*\\\}"
)


def _region(text: str, depth: int) -> Answer | None:
    r"""Reads a set of real numbers: inequalities, set builders, unions, \mathbb{R}. `mark`: of integers only."""
    if every := _ALL_REAL.fullmatch(plain_text(text)):
        return Answer("region", r"\mathbb{R}" + (rf" \setminus \{{{every['holes']}\}}" if every["holes"] else ""))
    whole = False
    if builder := _BUILDER.fullmatch(text):
        text, whole = builder["condition"], "{Z}" in (builder["domain"] or "")
        text = re.sub(r"^[a-zA-Z]\s*\\in\s*\\mathbb\{R\}\s*,?\s*", "", text)
        return Answer("region", text, mark=whole)
    text = re.sub(r"^(?:\\text\{\s*all\s*\}|all)\s+(?=[a-z]\s*[\\<>])", "", text)
    member = re.fullmatch(r"[a-zA-Z]\s*\\in\s*(.+)", text)
    inner = member[1] if member else text
    if len(split_top(inner, r"\\cup|\\cap|\\setminus")) > 1 or re.fullmatch(r"\\mathbb\{[RZNQC]\}", inner):
        return Answer("region", inner)
    if member:
        return read(inner, depth)
    parts = split_top(text, LIST_SEPARATOR)
    signs = [len(split_top(part, INEQUALITY)) > 1 for part in parts]
    if signs[0] and not any(signs[1:]) and r"\ne" in parts[0] and all(map(read_number, parts[1:])):  # x \ne 1, 2
        return Answer("region", r"\text{and}".join([parts[0], *(rf"{parts[0][0]} \ne {part}" for part in parts[1:])]))
    if any(signs) and all(sign or len(split_top(part, EQUALS)) > 1 for sign, part in zip(signs, parts, strict=True)):
        return Answer("region", text)
    return None


def _list(text: str, depth: int) -> Answer | None:
    """Reads several answers: 'x = 2 or x = 3', '1, 2', '\\pm 2'."""
    text = re.sub(r"^(?:both|either)\s+", "", text)
    parts = [part.strip() for part in split_top(text, LIST_SEPARATOR)]
    parts = [part for part in parts if part]
    if len(parts) > _MOST_PARTS:
        return None
    if len(parts) > 1:
        return Answer("list", text, _elements(parts, depth))
    return Answer("list", text, _elements([text], depth)) if _signs(text) else None


def _signs(text: str) -> tuple[str, str] | None:
    r"""Returns the two texts that \pm stands for, or None."""
    if r"\pm" not in text or len(split_top(text, EQUALS)) > 2:
        return None
    upper, lower = (re.sub(r"\\([pm])m(?![A-Za-z])", sign, text) for sign in (_upper_sign, _lower_sign))
    return upper, lower


def _upper_sign(match: re.Match[str]) -> str:
    return {"p": "+", "m": "-"}[match[1]]


def _lower_sign(match: re.Match[str]) -> str:
    return {"p": "-", "m": "+"}[match[1]]


def _elements(parts: list[str], depth: int) -> tuple[Answer, ...]:
    r"""Reads the elements of a list: an ellipsis between integers is written out, \pm gives two elements."""
    if any(part.startswith(r"\ldots") for part in parts):
        parts = _written_out(parts)
    names = {sides[0].strip() for part in parts if len(sides := split_top(part, EQUALS)) == 2}
    if len(names) == 1 and len(split_top(parts[0], EQUALS)) == 2 and all(map(_LETTER.fullmatch, names)):
        parts = [split_top(part, EQUALS)[-1].strip() for part in parts]  # x = 1, x = 2; x = 1, 2
    elements = (one.strip() for part in parts for one in (_signs(part) or (part,)))
    return tuple(read(re.sub(r"^\+\s*", "", one), depth) for one in elements)


_LETTER = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?")


def _written_out(parts: list[str]) -> list[str]:
    """Returns the elements that an ellipsis stands for, where it goes on in equal steps between integers."""
    at = next(i for i, part in enumerate(parts) if part.startswith(r"\ldots"))
    numbers = [read_number(part) for part in parts[:at] + parts[at + 1 :]]
    if at < 1 or len(numbers) < 2 or any(n is None or n.denominator != 1 for n in numbers):
        return parts
    integers = [int(n) for n in numbers if n is not None]
    step = integers[1] - integers[0] if at > 1 else 1
    steps = range(integers[0], integers[0] + at * step, step) if step else range(0)
    if list(steps) != integers[:at]:
        return parts
    if at == len(parts) - 1:  # 2, 4, 6, 8, ...: as many as tell the step
        return [*map(str, integers[:3]), r"\ldots"] if at > 2 else parts
    last, whole = integers[-1], range(integers[0], integers[-1] + (1 if step > 0 else -1), step)
    tail = integers[at:]
    if len(whole) > _MOST_PARTS or last not in whole or list(whole[len(whole) - len(tail) :]) != tail:
        return parts
    return list(map(str, whole))


def _equation(text: str, depth: int) -> Answer | None:
    """Reads a chain of equations; `mark` is the place of the first side behind an approximation, if there is one."""
    exact, *near = split_top(text, r"\\approx|\\sim")
    sides = [side.strip() for side in split_top(exact, EQUALS)]
    sides = [side for side in sides if side]
    rough = [side.strip() for part in near for side in split_top(part, EQUALS) if side.strip()]
    if len(sides) + len(rough) < 2 and not (rough or text.startswith("=")):
        return None
    mark = len(sides) if rough else None
    return Answer("equation", text, tuple(read(side, depth) for side in (sides + rough)[:_MOST_PARTS]), mark)


_NAME = re.compile(
    r"(?:\\text\{[^{}]*\}|\\(?:angle|triangle|overline|hat|vec)\s*\{?\s*[A-Za-z]+\s*\}?"
    r"|\\[a-z]+|[A-Za-z]|[A-Za-z][A-Za-z ]{2,})"
    r"(?:_\{?\w+\}?)?'*(?:\^\{-1\})?\s*(?:\([A-Za-z]\))?"
)


def assignment(equation: Answer) -> tuple[str | None, Answer]:
    """Returns the name that an equation defines ('' for a chain of numbers, None for others), and its value."""
    first, last = equation.parts[0], equation.parts[-1]
    if _NAME.fullmatch(last.text) and not _NAME.fullmatch(first.text):
        first, last = last, first
    if _NAME.fullmatch(first.text):
        return first.text.replace(" ", ""), last
    return (None if re.search(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])", first.text) else ""), last


_UNIT_VECTOR = re.compile(r"\\hat\{([ijk])\}")


def _vector(text: str, depth: int) -> Answer | None:
    """Reads 3i + 2j, in unit vectors, as the sequence (3, 2)."""
    names = _UNIT_VECTOR.findall(text)
    terms = re.split(r"(?<=\})\s*(?=[-+])", text)
    if not names or len(names) != len(set(names)) or len(names) != len(terms):
        return None
    entries = dict.fromkeys("ijk" if "k" in names else "ij", "0")
    for name, term in zip(names, terms, strict=True):
        factor = _UNIT_VECTOR.sub("", term).replace(" ", "").removeprefix("+")
        entries[name] = f"{factor}1" if factor in ("", "-") else factor
    return Answer("sequence", text, tuple(read(entry, depth) for entry in entries.values()), "()")


_BRACKETS = {"(": ")", "[": "]", "]": "[", r"\{": r"\}", r"\langle": r"\rangle", "<": ">"}
_BRACKETED = re.compile(
    r"(?P<open>\\\{|\\langle|[(\[\]<])\s*(?P<content>.*?)\s*(?P<close>\\\}|\\rangle|[)\]\[>])(?P<power>\^\{?T\}?|\^\{?\\top\}?)?",
    re.DOTALL,
)


def _sequence(text: str, depth: int) -> Answer | None:
    """Reads points, intervals, vectors, sets: what stands in one pair of brackets, with commas between."""
    found = _BRACKETED.fullmatch(re.sub(r"^[A-Z]\s*(?==?\s*\([^()]*,[^()]*\)$)=?\s*", "", text))
    if not found or not _whole(found["content"]):
        return None
    content, opened = found["content"], found["open"]
    if opened == r"\{":
        parts = [part.strip() for part in split_top(content, LIST_SEPARATOR) if part.strip()]
        return Answer("set", text, _elements(parts, depth)) if len(parts) <= _MOST_PARTS else None
    parts = [part.strip() for part in split_top(content, "[,;]")]
    if len(parts) == 1:
        mates = _BRACKETS[opened] == found["close"]
        return read(content, depth) if opened == "(" and mates and not re.fullmatch("[A-Za-z]", content) else None
    if len(parts) > _MOST_PARTS or not all(parts):
        return None
    brackets = "()" if opened in (r"\langle", "<") or found["power"] else opened + found["close"]

    return Answer("sequence", text, tuple(read(part, depth) for part in parts), brackets)


def _whole(content: str) -> bool:
    """Returns whether no bracket that stands before the content is closed in it, as in '(1,2) and (3,4)'."""
    depth = 0
    for bracket in re.finditer(r"\\\{|\\\}|[()\[\]{}]", content):
        depth += 1 if bracket[0] in ("(", "[", "{", r"\{") else -1
        if depth < 0:
            return False
    return True


_READERS: tuple[Callable[[str, int], Answer | None], ...] = (
    lambda text, _: read_figures(text),
    _quantity,
    _vector,
    _rows,
    _region,
    _list,
    _equation,
    lambda text, _: read_ratio(text),
    _sequence,
)
