"""An answer as it was read: a tree of kinds, whose leaves are numbers, words and expressions."""

import re
from functools import cache
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "leaf", "list", "set", "sequence", "matrix", "cases", "equation", "region", "ratio", "time", "date", "base",
    "congruence",
]  # fmt: skip


class Answer(NamedTuple):
    """An answer as it was read."""

    kind: Kind
    text: str
    """The clean text of the answer (`notation.clean`)."""
    parts: tuple["Answer", ...] = ()
    """Elements of a list, set, sequence or ratio; rows of a matrix or of cases; sides of an equation; residues."""
    mark: Any = None
    """The brackets of a sequence or a matrix; digits and base; modulus and residues; a time or a date."""


def split_top(text: str, separator: str) -> list[str]:
    """Returns the parts of the text between separators (a pattern) that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for found in _tokens(separator).finditer(text):
        if found["open"]:
            depth += 1
        elif found["close"]:
            depth = max(depth - 1, 0)
        elif found["separator"] and depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


@cache
def _tokens(separator: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<separator>{separator})|(?P<open>\\begin|\\\{{|\\langle|[(\[{{])|(?P<close>\\end|\\\}}|\\rangle|[)\]}}])"
        r"|\\[A-Za-z]+|\\."
    )


def plain_text(text: str) -> str:
    r"""Returns the text with the content of \text{...} in its place."""
    return " ".join(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).split()) if "\\text" in text else text


AND = r"\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z])"
LIST_SEPARATOR = rf",\s*(?:{AND})|[,;]|{AND}"
EQUALS = r"(?<![<>!:=])=(?!=)"
INEQUALITY = r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>"

Verdict = bool | None
"""Whether two answers are equal; None when telling needs algebra."""
