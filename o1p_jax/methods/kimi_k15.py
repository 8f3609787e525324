"""Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3).

    lam(y) = 0.5 - (L(y) - min L) / (max L - min L)
    R(y)   = A(y) + weight (lam(y) if A(y) else min(0, lam(y)))

min and max are over all of the problem's samples; where they are equal, lam is 0. Advantages are R minus its mean. Left
out: fresh samples, the squared loss of online mirror descent, and the penalty's slow start.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Normalize, Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class KimiK15Params(RewardedParams):
    """Right samples are paid for being short, wrong ones pay for being long (arXiv 2501.12599)."""

    NORMALIZE: ClassVar[Normalize] = "mean"

    name: str = option("kimi_k15", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    weight: float = option(1.0, WEIGHTS, least=0, most=1e6)
    """The weight of the length reward against correctness, which earns 1; the paper names no value."""


class KimiK15(Rewarded):
    title = "Kimi k1.5's length reward"
    paper = "arXiv 2501.12599, section 2.3.3"
    Params = KimiK15Params

    def reward(self, group: Group, params: KimiK15Params) -> Float[np.ndarray, " K"]:
        length_K = group.counted_K.astype(np.float64)
        span = np.ptp(length_K)
        lam_K = 0.5 - (length_K - length_K.min()) / span if span else np.zeros_like(length_K)
        return group.correct_K + params.weight * np.where(group.correct_K, lam_K, np.minimum(lam_K, 0.0))

    def formula(self, params: KimiK15Params) -> str:
        return (
            f"    R(y) = A(y) + {params.weight} · lam(y) if y is correct, {params.weight} · min(0, lam(y)) if not\n\n"
            "where A(y) is 1 if y is correct and 0 if not, and lam(y) falls evenly from 0.5 for the problem's shortest "
            "solution to -0.5 for its longest."
        )
