r"""Answers are compared: structure by structure, down to leaves, which are numbers with units, words or expressions.

`quick_equal` settles most pairs without algebra, in about a tenth of a millisecond or less. What it leaves open goes to
the grader's workers, which compare the same structures by the same rules, with algebra for the leaves
(`grading.algebra`). docs/grading.md has the rules. The module evaluates no text.
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from o1p_jax.grading.figures import same_figures
from o1p_jax.grading.groups import any_of, in_order, same_groups
from o1p_jax.grading.leaves import in_base_units, is_empty, is_radians, read_leaf, same_values
from o1p_jax.grading.notation import clean
from o1p_jax.grading.numbers import read_number
from o1p_jax.grading.structure import assignment, read
from o1p_jax.grading.tree import Answer, Verdict, plain_text

MAX_ANSWER = 1000
"""Characters of the longest answer; what is longer is none."""


class Algebra(NamedTuple):
    """What decides where the texts don't: each function takes the answer's text and the gold text."""

    expressions: Callable[[str, str], Verdict]
    equations: Callable[[str, str], Verdict]
    regions: Callable[[Answer, Answer], Verdict]


_UNDECIDED = Algebra(*[lambda *_: None] * 3)
_PLAIN = re.compile(r"\$?(-?)\$?(\d{1,15}|\d{1,3}(?:,\d{3}){1,4})(?:\.0{0,9})?\$?\.?")


def quick_equal(pred: str, gold: str) -> Verdict:
    r"""Returns whether two answers are equal; None when telling needs algebra.

    Numbers compare by value, however written (1,234; 3 1/2; 1.2e5; 0.\overline{3}); a missing unit is no fault, two
    quantities that differ (5 cm, 5 m) are; 50% equals 50 and 0.5; words compare as words, whatever their case.
    """
    plain_pred, plain_gold = _PLAIN.fullmatch(pred.strip()), _PLAIN.fullmatch(gold.strip())
    if plain_pred and plain_gold:  # most of the answers there are
        return _integer(plain_pred) == _integer(plain_gold)
    return equal(pred, gold, _UNDECIDED)


def _integer(match: re.Match[str]) -> int:
    return int(match[1] + match[2].replace(",", ""))


def equal(pred: str, gold: str, algebra: Algebra) -> Verdict:
    """Returns whether an answer equals the gold answer, by the rules and by the algebra that is given."""
    pred, gold = _cleaned(pred), _cleaned(gold)
    if not pred or not gold:
        return False
    if pred == gold:
        return True
    return _same(read(pred), read(gold), algebra)


@lru_cache(maxsize=4096)
def _cleaned(answer: str) -> str:
    return clean(answer) if len(answer) <= MAX_ANSWER else ""


def _same(pred: Answer, gold: Answer, algebra: Algebra) -> Verdict:
    """Compares two answers by the first rule that knows their kinds."""
    if pred.text and pred.text == gold.text:
        return True
    for rule in _RULES:
        if (verdict := rule(pred, gold, algebra)) is not NotImplemented:
            return verdict
    return False


# The rules. Each returns NotImplemented for kinds of answers that it does not know.


def _choices(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """A choice's letter may come with its text: 'B', '(B)', 'B. 17' and '(B) 17' are one."""
    mine, theirs = _choice(pred.text), _choice(gold.text)
    if mine and theirs:
        if "(" in gold.text[:7]:
            return mine[0].upper() == theirs[0].upper()
        return mine[0] == theirs[0]
    if theirs and theirs[1]:
        return _same(pred, read(theirs[1]), algebra)
    if mine and mine[1] and not theirs:
        return _same(read(mine[1]), gold, algebra)
    return NotImplemented


_CHOICE = re.compile(
    r"(?:(?:the )?(?:option|choice|answer|letter)\s+)?"
    r"(?:\((?P<a>[A-Za-z])\)|(?P<b>[A-Za-z])\s?\)|(?P<c>[A-Z])(?=\s*[.:]\s|\Z)|(?P<d>[A-Z])(?=\s+-\s))"
    r"(?!\s*(?:[+*/^=<>,(]|-\S|and\b|or\b|\\(?:cdot|times|le|ge|pm|cup|cap|in)\b))[.:-]?\s*(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)


def _choice(text: str) -> tuple[str, str] | None:
    """Returns the letter of a choice and the text behind it, or None."""
    if not (found := _CHOICE.fullmatch(plain_text(text))):
        return None
    letter = found["a"] or found["b"] or found["c"] or found["d"]
    if letter.islower() and not (found["a"] or found["b"]):
        return None
    return letter, found["rest"].strip(" .:-")


def _equations(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """x = 5 is 5 where only one side names it; a chain's last side counts: 6 * 7 = 42."""
    if gold.kind == "equation":
        if gold.mark is not None:
            return any_of(_same(pred, side, algebra) for side in (gold.parts[gold.mark], gold.parts[gold.mark - 1]))
        name, value = assignment(gold)
        if pred.kind != "equation":
            return _same(pred, value, algebra) if name is not None else False
        pred_name, pred_value = assignment(pred)
        if name and pred_name:
            argument, pred_argument = name.partition("(")[2], pred_name.partition("(")[2]
            if not _one_name(pred_name, name):
                return algebra.equations(pred.text, gold.text)
            if argument != pred_argument and argument and pred_argument:
                letter = rf"(?<![A-Za-z\\]){re.escape(pred_argument[0])}(?![A-Za-z])"
                pred_value = read(re.sub(letter, argument[0], pred_value.text))
            return _same(pred_value, value, algebra)
        return algebra.equations(pred.text, gold.text)
    if pred.kind == "equation" and gold.kind not in ("list", "set"):
        if pred.mark is None:
            name, value = assignment(pred)
            if name == "" and read_number(value.text) is None and read_number(pred.parts[0].text) is not None:
                value = pred.parts[0]  # 42 = 6 * 7
            return _same(value, gold, algebra)
        sides = (pred.parts[-1], pred.parts[max(pred.mark - 1, 0)])
        return any_of(_same(side, gold, algebra) for side in sides)
    return NotImplemented


def _one_name(mine: str, theirs: str) -> bool:
    """Returns whether two names of values may be one: f(x), f(t) and y are, x and y are not."""
    mine, theirs = mine.partition("(")[0], theirs.partition("(")[0]
    one_of_them_is_y = "y" in (mine, theirs) and bool({mine, theirs} & {"f", "g", "h"})
    return mine == theirs or one_of_them_is_y or len(mine) > 1 < len(theirs)


def _regions(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """Inequalities, intervals, unions and set builders are sets of real numbers."""
    if "region" not in (pred.kind, gold.kind):
        return NotImplemented
    others = {"region", "sequence", "set", "list", "leaf", "equation"}
    return algebra.regions(pred, gold) if {pred.kind, gold.kind} <= others else False


def _figures(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """Ratios, times, dates, bases and congruences have their own rules; the parts of a ratio may need algebra."""
    verdict = same_figures(pred, gold)
    if verdict is None and len(pred.parts) == 2:
        return algebra.expressions(*(rf"\frac{{{one.parts[0].text}}}{{{one.parts[1].text}}}" for one in (pred, gold)))
    return in_order(pred.parts, gold.parts, partial(_same, algebra=algebra)) if verdict is None else verdict


def _groups(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """Answers of several parts compare part by part."""
    return same_groups(pred, gold, partial(_same, algebra=algebra))


def _yes_or_no(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """An answer may begin with the yes or no that the gold answer is, and explain it further."""
    word = plain_text(gold.text).lower()
    if word not in ("yes", "no", "true", "false"):
        return NotImplemented
    said = re.match(r"([a-z]+)(?:\s*[,.;:!]\s|\s-+\s|\s+(?:because|since|as)\b|\Z)", plain_text(pred.text).lower())
    return said is not None and said[1] == word


def _leaves(pred: Answer, gold: Answer, algebra: Algebra) -> Any:
    """Numbers with units, words, and what needs algebra."""
    if pred.kind != "leaf" or gold.kind != "leaf":
        return NotImplemented
    mine, theirs = read_leaf(pred.text), read_leaf(gold.text)
    if mine.value is not None and theirs.value is not None:
        return same_values(mine, theirs)
    if is_empty(pred.text) and is_empty(gold.text):
        return True
    if mine.words or theirs.words:  # algebra would multiply their letters: least = slate
        return mine.words == theirs.words
    angles = [one.unit.dimensions == (("angle", 1),) for one in (mine, theirs)]
    if angles[0] != angles[1]:  # an angle without a unit may be in degrees or radians
        texts = [one.text + r"^\circ" * angle for one, angle in zip((mine, theirs), angles, strict=True)]
        in_radians = algebra.expressions(*texts)
        radians = is_radians(mine) or is_radians(theirs)
        return in_radians if radians else any_of((algebra.expressions(mine.text, theirs.text), in_radians))
    if mine.unit.dimensions and theirs.unit.dimensions:
        if mine.unit.dimensions != theirs.unit.dimensions:
            return False
        if mine.unit.factor != theirs.unit.factor:
            return algebra.expressions(in_base_units(mine), in_base_units(theirs))
    return True if mine.text == theirs.text else algebra.expressions(mine.text, theirs.text)


_RULES = (_yes_or_no, _choices, _figures, _equations, _regions, _groups, _leaves)
