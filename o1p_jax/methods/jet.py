"""JET, just-enough thinking (arXiv 2509.23392).

    R(y) = A(y) (1 + alpha (1 - delta) (max L - L(y)) / (max L - min L) + delta)

max and min are over the problem's correct samples; where they are equal the middle term is 0. By the authors' code
(`examples/reward_function/math.py`), in which being right earns 0.9 and a boxed answer 0.1. Left out: the reward for
the box alone, fresh samples, and samples that the authors cut short and make answer, which is JET's other half.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class JETParams(RewardedParams):
    """Right samples earn more the nearer they are to the shortest right one (arXiv 2509.23392)."""

    name: str = option("jet", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(1.2, WEIGHTS, least=0, most=1e6)
    """The weight of length."""
    delta: float = option(0.05, WEIGHTS, least=0, most=1)
    """What even the longest right sample earns for its length."""


class JET(Rewarded):
    title = "JET's length reward"
    paper = "arXiv 2509.23392"
    Params = JETParams

    def reward(self, group: Group, params: JETParams) -> Float[np.ndarray, " K"]:
        length_K = group.counted_K.astype(np.float64)
        right = length_K[group.correct_K]
        span = np.ptp(right) if right.size else 0.0
        saved_K = (right.max() - length_K) / span if span else np.zeros_like(length_K)
        return group.correct_K * (1.0 + params.alpha * (1.0 - params.delta) * saved_K + params.delta)

    def formula(self, params: JETParams) -> str:
        weight = params.alpha * (1 - params.delta)
        return (
            f"    R(y) = 1 + {weight:g} · (Lmax - L(y)) / (Lmax - Lmin) + {params.delta} if y is correct, 0 if not\n\n"
            "where L(y) is y's length in tokens, and Lmax and Lmin are those of the problem's longest and shortest "
            "correct solutions."
        )
