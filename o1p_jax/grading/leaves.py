"""The leaves of answers: numbers with units, words, and expressions, which are left to algebra."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from o1p_jax.grading.numbers import read_number, rounds_to
from o1p_jax.grading.tree import plain_text
from o1p_jax.grading.units import NONE, PERCENT, Unit, is_word, split_compound, split_unit


class Leaf(NamedTuple):
    """What an answer without structure says."""

    text: str
    """The clean text without its unit."""
    unit: Unit
    value: Fraction | None
    """The number that the text is; None for words and expressions."""
    words: str
    """The answer in lower case when it is words; else ''."""


_RADIANS = ("rad", "radian", "radians")
_ABOUT = re.compile(r"(?:the|about|approximately|exactly|roughly|around|only|just|a total of|\\approx)\b\s*")
_SYNONYMS = {
    words: meaning
    for meaning, all_words in {
        "no solution": "no solutions|none|no real solution|no real solutions|there is no solution"
        "|there are no solutions|empty set|the empty set",
        "undefined": "dne|does not exist|not defined",
        "infinite": "infinitely many|infinitely many solutions|infinite solutions",
    }.items()
    for words in all_words.split("|")
}


@lru_cache(maxsize=4096)
def read_leaf(text: str) -> Leaf:
    """Reads a clean text that has no structure."""
    plain = plain_text(text)
    if (value := read_number(plain)) is not None:
        return Leaf(text, NONE, value, "")
    if compound := split_compound(_ABOUT.sub("", plain, count=1)):
        return Leaf(text, compound[1], compound[0], "")
    number, unit = split_unit(_ABOUT.sub("", text, count=1))
    value = read_number(number)
    if value is not None or _is_percent(unit) or unit.name in _RADIANS or (unit.dimensions and r"\circ" not in text):
        return Leaf(number.strip(), unit, None if value is None else value * unit.scale, "")
    if not re.search(r"[\d\\=+^_{}<>|/]", plain) and any(
        len(w) > 1 and is_word(w) for w in re.findall("[A-Za-z]+", plain)
    ):
        words = re.sub(r"[\s,.'\"!?()-]+", " ", plain).strip().lower()
        return Leaf(text, NONE, None, _SYNONYMS.get(words, re.sub(r"^(?:the|an?) (?=\w)", "", words)))
    return Leaf(text, NONE, None, "")


def _is_percent(unit: Unit) -> bool:
    return unit.name == PERCENT.name


def is_radians(leaf: Leaf) -> bool:
    """Returns whether a leaf says that it is in radians."""
    return leaf.unit.name in _RADIANS


def is_empty(text: str) -> bool:
    r"""Returns whether a clean text says that there is nothing: \emptyset, \{\}, 'no solution'."""
    return text == r"\emptyset" or bool(re.fullmatch(r"\\\{\s*\\\}", text)) or read_leaf(text).words == "no solution"


def same_values(pred: Leaf, gold: Leaf) -> bool:
    """Compares two numbers with their units: quantities by their size, a percentage as itself and as a hundredth."""
    assert pred.value is not None and gold.value is not None
    if pred.unit.side and gold.unit.side and pred.unit.side != gold.unit.side:  # 3 miles north, 3 miles south
        return False
    if pred.unit.dimensions and gold.unit.dimensions:
        if pred.unit.dimensions != gold.unit.dimensions:
            return False
        mine, theirs = (
            (value + unit.offset) * unit.factor for value, unit in ((pred.value, pred.unit), (gold.value, gold.unit))
        )
        return mine == theirs or (pred.unit[2:4] == gold.unit[2:4] and _rounded(pred, gold, pred.value))
    if is_radians(pred if gold.unit.dimensions else gold) and (pred.unit.dimensions or gold.unit.dimensions):
        return False
    if pred.unit.parts or gold.unit.parts:  # 2 hours 30 minutes, where one number is asked for: 150, or 2.5
        compound, other = (pred, gold) if pred.unit.parts else (gold, pred)
        assert other.value is not None
        return not other.unit.dimensions and compound.value in [other.value * part for part in compound.unit.parts]
    readings = {pred.value}
    if _is_percent(pred.unit) and not _is_percent(gold.unit):
        readings = {pred.value / 100} | ({pred.value} if abs(gold.value) >= 1 else set())
    elif _is_percent(gold.unit) and not _is_percent(pred.unit):
        readings = {pred.value, pred.value * 100}
    return gold.value in readings or any(_rounded(pred, gold, reading) for reading in readings)


def _rounded(pred: Leaf, gold: Leaf, reading: Fraction) -> bool:
    """Returns whether one of two numbers is a decimal that the other, more exact one rounds to."""
    assert gold.value is not None
    mine, theirs = _places(pred.text), _places(gold.text)
    if mine and _is_percent(pred.unit) and not _is_percent(gold.unit):
        mine += 2
    if theirs and (theirs < mine or mine == 0):
        return rounds_to(reading, gold.value, theirs)
    return mine > 0 and theirs == 0 and rounds_to(gold.value, reading, mine)


def _places(text: str) -> int:
    """Returns the number of decimal places of a numeral; 0 for other numbers."""
    found = re.fullmatch(r"[-+]?\s*[\d,]*\.(\d+)", text.strip())
    return len(found[1]) if found else 0


def in_base_units(leaf: Leaf) -> str:
    """Returns the text of a leaf's number in the base units of its dimensions, as a product."""
    factor = leaf.unit.factor * leaf.unit.scale
    return leaf.text if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({leaf.text})"
