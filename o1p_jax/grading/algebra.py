"""The rules of `answers` with SymPy for the leaves: the last verdict on a pair, in the grader's workers only."""

from functools import partial

from o1p_jax.grading.answers import Algebra, equal
from o1p_jax.grading.expressions import same_equations, same_expressions
from o1p_jax.grading.regions import same_regions


def compare(pred: str, gold: str, allow_unfinished: bool) -> bool:
    """Returns whether an answer equals the gold answer. Raises Unreadable.

    Unless `allow_unfinished`, an answer that leaves sums or products of numbers to do is not equal to a number.
    """
    expressions = partial(same_expressions, allow_unfinished=allow_unfinished)
    return bool(equal(pred, gold, Algebra(expressions, same_equations, same_regions)))
