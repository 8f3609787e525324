r"""Expressions are read by math-verify's parser and compared by SymPy, in the grader's workers only.

The texts were written by a model: symbolic algebra may hang or eat all memory on them (towers of powers do), so that no
function of this module may be called outside a process that can be killed.

Two expressions are equal if their values agree to 100 digits, relative to their size: as they are where they hold no
letters, at a dozen points otherwise. Rounding to fixed decimals would make all tiny numbers equal.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any, Literal

import sympy
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from o1p_jax.grading.numbers import rounds_to
from o1p_jax.grading.tree import EQUALS, split_top
from o1p_jax.grading.unfinished import is_open

Whose = Literal["pred", "gold"]

_DIGITS = 100
_TARGETS = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
        )
    ),
)


class Unreadable(Exception):
    """An expression can't be read; the exception's argument says whose: 'gold' or 'pred'."""


_DEGREES = re.compile(r"(\d+(?:\.\d+)?|(?<![A-Za-z])[a-z](?![a-z])|\\[a-z]+ ?)\s*\^\\circ")
_DECIMAL = re.compile(r"(?<![\d_])(\d*)\.(\d+)(?!\d)")
_STEPS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\text\{\s*([A-Za-z])\s*\}"), r" \1 "),
    (re.compile(r"(?<![A-Za-z\\])([A-Za-z])('+)"), lambda m: rf"{m[1]}_{{p{len(m[2])}}}"),
    (_DEGREES, r"(\\frac{\1 \\pi}{180})"),
    (_DECIMAL, lambda m: rf"(\frac{{{int(m[1] + m[2])}}}{{1{'0' * len(m[2])}}})"),  # exact, where a float is not
    (re.compile(r"(?<=[\d)}])(?<!\^\{\d\})(?<!\^\{-1\})\s*\((?=[^()]*\d)"), r" \\cdot ("),  # 2(3) is no mixed number
    (re.compile(r"\)\s*(?=[\d(])"), r") \\cdot "),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
)


def parse_text(text: str, whose: Whose) -> Any:
    """Returns the SymPy object that a clean text says, with i as the imaginary unit. Raises Unreadable."""
    text = reduce(lambda text, step: step[0].sub(step[1], text), _STEPS, text)
    # A parsed expression comes with the text it was read from, and a text alone was not understood.
    found = parse(f"${text}$", _TARGETS, parsing_timeout=None)
    if not found or isinstance(found[0], str):
        raise Unreadable(whose)
    expression = found[0]
    if isinstance(expression, sympy.Basic):
        imaginary = [symbol for symbol in expression.free_symbols if getattr(symbol, "name", "") == "i"]
        expression = expression.subs(dict.fromkeys(imaginary, sympy.I))
    return expression


_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_SPARE = [rf"\{name}" for name in ("zeta", "kappa", "xi", "chi", "eta", "tau", "nu", "iota")]


def distinct_letters(pred: str, gold: str) -> tuple[str, str]:
    """Renames capitals whose small letter occurs too, because the parser reads both as one."""
    names = set(_LETTER.findall(pred)) | set(_LETTER.findall(gold))
    spare = iter(name for name in _SPARE if name not in names)
    new = {name: next(spare, name) for name in sorted(names) if name != (low := name.lower()) and low in names}
    if not new:
        return pred, gold

    def rename(match: re.Match[str]) -> str:
        return f"{new[match[0]]} " if match[0] in new else match[0]

    return _LETTER.sub(rename, pred), _LETTER.sub(rename, gold)


def same_expressions(pred: str, gold: str, allow_unfinished: bool) -> bool:
    """Returns whether two expressions are equal, and the answer finished if the gold answer is a number."""
    pred, gold = distinct_letters(pred, gold)
    theirs = parse_text(gold, "gold")
    mine = parse_text(pred, "pred")
    if not isinstance(theirs, sympy.Expr) or not isinstance(mine, sympy.Expr):
        return bool(verify([theirs], [mine], timeout_seconds=None, allow_set_relation_comp=True))
    if theirs.free_symbols:
        return _same_function(mine, theirs)
    if not allow_unfinished and not is_open(theirs, gold) and (mine.free_symbols or is_open(mine, pred, theirs)):
        return False
    return _same_number(mine, theirs) or _rounded(pred, theirs) or _rounded(gold, mine)


def _same_number(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Returns whether two expressions without letters have one value."""
    if a == b:
        return True
    x, y = (number.doit().evalf(_DIGITS + 20) for number in (a, b))
    if not (x.is_finite and y.is_finite):
        return bool(x == y)
    if max(abs(x), abs(y)) > 10**-_DIGITS or not (a.has(sympy.Add) or b.has(sympy.Add)):
        return _close(x, y)
    return (a - b).equals(0) is True  # a sum that is zero, but for rounding


def _close(x: sympy.Expr, y: sympy.Expr) -> bool:
    size = max(abs(x), abs(y))
    return bool(size == 0 or abs(x - y) <= size * sympy.Float(10, 30) ** -_DIGITS)


def _rounded(text: str, exact: sympy.Expr) -> bool:
    """Returns whether a text is the exact number as a decimal of six significant digits or more."""
    found = re.fullmatch(r"(-?)\s*(\d*)\.(\d+)(?:\s*\\ldots)?", text.strip())
    if not found or not exact.is_real:
        return False
    value = exact.doit().evalf(_DIGITS)
    return rounds_to(Fraction(str(value)), Fraction(f"{found[1]}{found[2] or 0}.{found[3]}"), len(found[3]))


def _points() -> Iterator[list[Fraction]]:
    """Yields points of four coordinates: integers, where (-1)^n is real; fractions of one sign, of both, small ones."""
    yield [Fraction(n) for n in (3, 5, 2, 7)]
    yield [Fraction(n) for n in (4, 3, 7, 2)]
    for step in range(4):
        for sign in (1, -1):
            yield [sign * Fraction(7 * k + 11, 3 * k + 5 + 2 * step) for k in range(4)]
    for step in range(2):
        yield [Fraction((-1) ** (k + step) * (2 * k + 3 + step), 7) for k in range(4)]
    yield [Fraction(k + 2, 13 + 3 * k) for k in range(4)]


def _values(functions: Sequence[sympy.Expr]) -> Iterator[list[sympy.Expr]]:
    """Yields the functions' values at points where all of them are defined, and real unless they hold i."""
    functions = [_with_plain_letters(f.doit()) for f in functions]
    letters = sorted(set().union(*(f.free_symbols for f in functions)), key=str)
    imaginary = any(f.has(sympy.I) for f in functions)
    for point in _points():
        at = {letter: sympy.Rational(*(point[k % 4] + k // 4).as_integer_ratio()) for k, letter in enumerate(letters)}
        if not imaginary and not all(_has_real_parts(f, at) for f in functions):
            continue
        values = [f.subs(at).evalf(_DIGITS + 10) for f in functions]
        if all(v.is_number and v.is_finite and (imaginary or v.is_real) for v in values):
            yield values


def _has_real_parts(f: sympy.Expr, at: dict[sympy.Symbol, sympy.Rational]) -> bool:
    """Returns whether the function's roots and logarithms are real at a point."""
    return all(part.subs(at).evalf().is_real is not False for part in f.atoms(sympy.Pow, sympy.log))


def _with_plain_letters(expression: sympy.Expr) -> sympy.Expr:
    """Drops what the parser assumes of letters, and takes values of unknown functions, f(x), for letters."""
    expression = expression.replace(
        lambda e: isinstance(e, sympy.core.function.AppliedUndef), lambda e: sympy.Symbol(str(e))
    )
    return expression.subs({s: sympy.Symbol(s.name) for s in expression.free_symbols})


def _same_function(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Returns whether two expressions with letters agree wherever both are defined, at two points or more."""
    if a == b:
        return True
    agreed = 0
    for x, y in _values((a, b)):
        if not _close(x, y):
            return False
        agreed += 1
    return agreed >= 2


def same_equations(pred: str, gold: str) -> bool:
    """Returns whether two equations say the same: their differences of sides are one up to a constant factor."""
    pred, gold = distinct_letters(pred, gold)
    theirs = [parse_text(side, "gold") for side in split_top(gold, EQUALS)]
    mine = [parse_text(side, "pred") for side in split_top(pred, EQUALS)]
    if len(theirs) != 2 or len(mine) != 2 or not all(isinstance(side, sympy.Expr) for side in theirs + mine):
        return False
    f, g = mine[0] - mine[1], theirs[0] - theirs[1]
    return factor_between(f, g) is not None or factor_between(_numerator(f), _numerator(g)) is not None


def _numerator(f: sympy.Expr) -> sympy.Expr:
    return sympy.fraction(sympy.together(f))[0]


def factor_between(f: sympy.Expr, g: sympy.Expr) -> sympy.Expr | None:
    """Returns the constant factor between two functions that are not zero, or None."""
    pairs = [(x, y) for x, y in _values((f, g)) if x != 0 or y != 0]
    if len(pairs) < 2 or any(x == 0 or y == 0 for x, y in pairs):
        return None
    factor = pairs[0][0] / pairs[0][1]
    return factor if all(_close(x, y * factor) for x, y in pairs) else None
