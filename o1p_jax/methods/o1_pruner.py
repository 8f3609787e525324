"""The length-harmonizing reward: pure functions of one problem's group of K samples, and of the N kept ones."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

_STD_FLOOR = 1e-8  # rewards are of order 1; below this they differ by rounding only


def length_harmonizing(
    lengths: Int[np.ndarray, " K"], correct: Bool[np.ndarray, " K"], lam: float
) -> Float[np.ndarray, " K"]:
    """R_LH of each sample of one problem (arXiv 2501.12570, section 4):

        R(y) = Lbar / L(y) - 1 + lam * (A(y) - Abar)

    `lengths` is L, tokens of each completion as sampled; `correct` is A; Lbar and Abar are plain means over the K
    samples, each included. An empty completion counts as one token, so that R stays finite.
    """
    length_K = np.maximum(lengths, 1).astype(np.float64)
    correct_K = correct.astype(np.float64)
    return length_K.mean() / length_K - 1.0 + lam * (correct_K - correct_K.mean())


def normalize(
    rewards: Float[np.ndarray, " N"], *, kind: Literal["zscore", "none"], limits: tuple[float, float] | None
) -> Float[np.ndarray, " N"]:
    """Rewards of the whole kept set to advantages.

    They are clipped to `limits` first (None: not). `zscore` then subtracts the mean and divides by the standard
    deviation (ddof 0), as the authors' code does; `none` leaves them. Rewards that are all equal express no
    preference: their z-scores are 0.
    """
    clipped_N = rewards if limits is None else rewards.clip(*limits)
    if kind == "none" or clipped_N.size == 0:
        return clipped_N
    std = clipped_N.std()
    return (clipped_N - clipped_N.mean()) / std if std > _STD_FLOOR else np.zeros_like(clipped_N)
