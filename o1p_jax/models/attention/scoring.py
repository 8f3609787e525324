"""How the product of a query and a key becomes a score, and the numbers that stand for "no window" and "not seen"."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

UNLIMITED = 2**30
"""A window that is longer than every row."""
MASKED = -1e30
"""The score of a key that is not seen: finite, so that no difference of two scores is NaN."""


class Scoring(NamedTuple):
    """The factor and the soft cap that turn the product of a query and a key into a score."""

    scale: float
    softcap: float | None = None
    """The c of c * tanh(scale * product / c); None means no cap."""


def window_of(windows: tuple[int | None, ...], kind: Int[Array, ""]) -> Int[Array, ""]:
    """Returns the window of the layers of this `kind`, which a compiled program chooses; UNLIMITED for None."""
    return jnp.array([window or UNLIMITED for window in windows], jnp.int32)[kind]
