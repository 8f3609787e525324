"""How the product of a query and a key becomes a score, and which numbers stand for "no window" and "masked"."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

UNLIMITED = 2**30
"""A window that is longer than every row."""
MASKED = -1e30
"""The score of what is not seen: finite, so that no difference of two scores is NaN."""


class Scoring(NamedTuple):
    """How the product of a query and a key becomes a score."""

    scale: float
    softcap: float | None = None
    """c of c * tanh(scale * product / c)."""


def window_of(windows: tuple[int | None, ...], kind: Int[Array, ""]) -> Int[Array, ""]:
    """The window of the layers of this `kind`, as a number that a compiled program can choose; None is UNLIMITED."""
    return jnp.array([window or UNLIMITED for window in windows], jnp.int32)[kind]
