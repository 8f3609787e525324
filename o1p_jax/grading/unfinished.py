r"""Work left undone: 17 * 6 - 9 is no answer to a question whose answer is 93, though it is equal to it.

With a reward for short solutions a model would learn to stop before the last step. docs/grading.md has the rule.
"""

import re
from itertools import combinations

import sympy

_TO_DO = re.compile(r"\\(?:div|sum|prod|int|lim)(?![A-Za-z])")


def is_open(number: sympy.Expr, text: str, gold: sympy.Expr | None = None) -> bool:
    """Returns whether a number still holds sums or products to do; `gold` is the number that it should be, if any.

    A rational number is written as an integer, fraction, root, power or one value of a function; any sum or product is
    work. In other numbers (1 + 2 sqrt(3)), and in what a function is taken of, the work is between rational parts and
    between like terms.
    """
    if _TO_DO.search(text):
        return True
    parts = [(number, gold is not None and bool(gold.doit().is_rational))]
    while parts:
        part, any_is_work = parts.pop()
        if isinstance(part, sympy.Add) and (any_is_work or _has_like_terms(part)):
            return True
        if isinstance(part, sympy.Mul) and _has_factors_to_multiply(part, any_is_work):
            return True
        any_is_work &= not isinstance(part, sympy.Function) or isinstance(part, sympy.exp)
        parts.extend((inner, any_is_work) for inner in part.args)
    return False


def _has_like_terms(part: sympy.Add) -> bool:
    return any(bool((a / b).doit().is_rational) for a, b in combinations(part.args, 2))


def _has_factors_to_multiply(part: sympy.Mul, any_is_work: bool) -> bool:
    """Returns whether a product is more than a sign, a fraction, a power of ten, and in other numbers one rational."""
    factors = [f for f in part.args if f != -1 and not _is_power_of_ten(f)]
    over = [f for f in factors if not (isinstance(f, sympy.Pow) and f.exp == -1)]
    under = [f for f in factors if f not in over]
    if sum(bool(any_is_work or f.is_rational) for f in over) > 1 or sum(bool(f.is_rational) for f in under) > 1:
        return True
    return bool(under) and any(isinstance(f, sympy.Rational) and f.q != 1 for f in over)


def _is_power_of_ten(factor: sympy.Expr) -> bool:
    return isinstance(factor, sympy.Pow) and factor.base == 10 and bool(factor.exp.is_integer)
