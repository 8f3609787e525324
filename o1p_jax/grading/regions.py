r"""Sets of real numbers: inequalities, intervals, unions and set builders are compared as SymPy's sets, in workers."""

import re

import sympy

from o1p_jax.grading.expressions import Unreadable, Whose, distinct_letters, factor_between, parse_text
from o1p_jax.grading.structure import read
from o1p_jax.grading.tree import EQUALS, INEQUALITY, Answer, split_top

_SIGNS = f"{INEQUALITY}|{EQUALS}"
_RELATIONS = {"<": sympy.Lt, ">": sympy.Gt, r"\le": sympy.Le, r"\ge": sympy.Ge, r"\ne": sympy.Ne, "=": sympy.Eq}
_OR, _AND = (rf"\\text\{{\s*,?\s*{word}\s*\}}|(?<![A-Za-z]){word}(?![A-Za-z])" for word in ("or", "and"))


def same_regions(pred: Answer, gold: Answer) -> bool:
    """Returns whether two answers are the same set of real numbers: inequalities, intervals, unions, set builders."""
    p, g = distinct_letters(pred.text, gold.text)
    pred, gold = pred._replace(text=p), gold._replace(text=g)
    names_p, names_g = (
        set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", text.replace(r"\mathbb{R}", ""))) for text in (p, g)
    )
    if names_p and names_g and names_p != names_g:
        return False
    try:
        theirs, mine = _region(gold, "gold"), _region(pred, "pred")
    except _SeveralLetters:
        return all(len(split_top(text, _SIGNS)) > 1 for text in (p, g)) and _same_relations(p, g)
    return bool(theirs == mine or sympy.SymmetricDifference(theirs, mine).doit().is_empty)


class _SeveralLetters(Exception):
    """An inequality has several letters, so that it is no set of real numbers."""


def _region(answer: Answer, whose: Whose) -> sympy.Set:
    """Returns the set that an answer is."""
    if answer.kind == "sequence":
        if answer.mark not in ("()", "[]", "(]", "[)", "][", "]]", "[[") or len(answer.parts) != 2:
            raise Unreadable(whose)
        low, high = (_number(part.text, whose) for part in answer.parts)
        return sympy.Interval(low, high, answer.mark[0] != "[", answer.mark[1] != "]")
    if answer.kind in ("set", "list"):
        return sympy.FiniteSet(*(_number(part.text, whose) for part in answer.parts))
    if answer.kind == "equation":
        return sympy.FiniteSet(_number(answer.parts[-1].text, whose))
    text = answer.text.strip()
    if answer.mark:
        return sympy.Intersection(_region(answer._replace(mark=None), whose), sympy.Integers)
    if named := re.fullmatch(r"\\mathbb\{([RZN])\}", text):
        return {"R": sympy.S.Reals, "Z": sympy.S.Integers, "N": sympy.S.Naturals}[named[1]]
    if text == r"\emptyset":
        return sympy.S.EmptySet
    for separator, join in ((_OR, sympy.Union), (r"\\cup", sympy.Union), (r"\\cap", sympy.Intersection)):
        if len(parts := split_top(text, separator)) > 1:
            return join(*(_region(_part(part), whose) for part in parts if part.strip(" ,")))
    if len(parts := split_top(text, r"\\setminus")) == 2:
        return sympy.Complement(*(_region(_part(part), whose) for part in parts))
    if len(parts := split_top(text, rf"[,;]|{_AND}")) > 1:
        sets = [_region(_part(part), whose) for part in parts if part.strip()]
        both = sympy.Intersection(*sets)
        return sympy.Union(*sets) if both.is_empty else both
    return _relation(text, whose)


def _part(text: str) -> Answer:
    text = text.strip(" ,")
    answer = read(text)
    return answer if answer.kind in ("sequence", "set") else Answer("region", text)


def _number(text: str, whose: Whose) -> sympy.Expr:
    number = parse_text(re.sub(r"^\+\s*", "", text), whose)
    if not isinstance(number, sympy.Expr):
        raise Unreadable(whose)
    if number.free_symbols:
        raise _SeveralLetters
    return number.doit()


def _sides(text: str, whose: Whose) -> tuple[list[str], list[sympy.Expr]]:
    """Returns the signs of a chain of relations, and the sides."""
    sides = [parse_text(side, whose) for side in split_top(text, _SIGNS)]
    signs = re.findall(_SIGNS, text)
    if len(sides) != len(signs) + 1 or len(sides) < 2 or not all(isinstance(side, sympy.Expr) for side in sides):
        raise Unreadable(whose)
    return signs, sides


def _relation(text: str, whose: Whose) -> sympy.Set:
    """Returns the set of x that a chain such as 1 < x \\le 3 or |x| < 2 allows."""
    if len(split_top(text, _SIGNS)) == 1:
        return sympy.FiniteSet(_number(text, whose))
    signs, sides = _sides(text, whose)
    letters = set().union(*(side.free_symbols for side in sides))
    if len(letters) != 1:
        raise _SeveralLetters
    x = sympy.Symbol("x", real=True)
    sides = [side.subs(letters.copy().pop(), x) for side in sides]
    pairs = zip(signs, sides, sides[1:], strict=False)
    return sympy.Intersection(*(_RELATIONS[sign](left, right).as_set() for sign, left, right in pairs))


def _same_relations(pred: str, gold: str) -> bool:
    """Returns whether two chains of inequalities in several letters are one, up to positive factors and direction."""
    theirs, mine = _differences(*_sides(gold, "gold")), _differences(*_sides(pred, "pred"))
    return len(theirs) == len(mine) and all(any(_same_relation(a, b) for b in mine) for a in theirs)


def _differences(signs: list[str], sides: list[sympy.Expr]) -> list[tuple[str, sympy.Expr]]:
    """Returns each sign of a chain with the difference of its sides."""
    return [(sign, left - right) for sign, left, right in zip(signs, sides, sides[1:], strict=False)]


def _same_relation(a: tuple[str, sympy.Expr], b: tuple[str, sympy.Expr]) -> bool:
    factor = factor_between(a[1], b[1])
    flipped = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
    return factor is not None and b[0] == (a[0] if factor > 0 else flipped.get(a[0], a[0]))
