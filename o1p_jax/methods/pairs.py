"""What methods share that train on pairs: a unit is the better sample and the worse one, which share a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from o1p_jax.methods.base import Group, Method, Params, Scored


@dataclass(frozen=True, kw_only=True)
class PairParams(Params):
    """What every method of pairs has."""

    UNIT: ClassVar[int] = 2


class Pairs(Method):
    """A method whose units are pairs, the winner first; its objective compares neighbouring sequences of a row."""

    def advantage(self, scored: Scored, params: Any) -> Float[np.ndarray, " N"]:
        """Returns how many pairs a sample wins, less those it loses: the objective needs no weights.

        A sample may be the winner of one pair and the loser of another.
        """
        weight_N = np.zeros_like(scored.reward_N)
        np.add.at(weight_N, scored.units_US[:, 0], 1.0)
        np.add.at(weight_N, scored.units_US[:, 1], -1.0)
        return weight_N


def as_pairs(pairs: Sequence[tuple[Any, Any]]) -> Int[np.ndarray, "U 2"]:
    """Returns (winner, loser) pairs as units."""
    return np.array(pairs, np.int64).reshape(-1, 2)


def by_length(group: Group, lot_K: Int[np.ndarray, " K"]) -> Int[np.ndarray, " K"]:
    """Returns the samples' numbers, the shortest first, by lot among equals."""
    return np.lexsort((lot_K, group.counted_K))
