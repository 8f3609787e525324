"""ACOER, adaptive correct-only efficiency reward (arXiv 2606.22716).

    R(y)   = A(y) (1 + alpha f(1 - min(L(y) / B, 1)))
    f(x)   = log(1 + scale x) / log(1 + scale)
    B      = budget times the mean length of all correct samples of the pool

By the authors' code (`acoer/reward.py`), with tokens of the whole completion where it counts characters of the thought.
Left out: fresh samples, and the control loop: the authors let alpha rise from 0.02 to 0.5 at most while accuracy holds;
one pool has no such course, and alpha is their largest. B, there of a moving average, is the pool's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class ACOERParams(RewardedParams):
    """Right samples earn more the farther below a common budget they are (arXiv 2606.22716)."""

    name: str = option("acoer", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(0.5, WEIGHTS, least=0, most=1e6)
    """The weight of efficiency; the authors: 0.02 to 0.5, as accuracy allows."""
    budget: float = option(0.85, WEIGHTS, least=1e-6, most=1e6)
    """The budget, as a share of the correct samples' mean length."""
    scale: float = option(5.0, WEIGHTS, least=1e-6, most=1e6)
    """How much the first tokens below the budget earn, against the last."""


class ACOER(Rewarded):
    title = "ACOER, the adaptive correct-only efficiency reward"
    paper = "arXiv 2606.22716"
    Params = ACOERParams

    def reward(self, group: Group, params: ACOERParams) -> Float[np.ndarray, " K"]:
        """Returns the rewards where this problem is the whole pool."""
        return self.rewards([group], params)[0]

    def rewards(self, groups: Sequence[Group], params: ACOERParams) -> list[Float[np.ndarray, " K"]]:
        right = np.concatenate([group.counted_K[group.correct_K] for group in groups] or [[]])
        budget = params.budget * right.mean() if right.size else 1.0
        rewards = []
        for group in groups:
            below_K = 1.0 - np.minimum(group.counted_K / budget, 1.0)
            efficiency_K = np.log1p(params.scale * below_K) / np.log1p(params.scale)
            rewards.append(group.correct_K * (1.0 + params.alpha * efficiency_K))
        return rewards

    def formula(self, params: ACOERParams) -> str:
        scale = params.scale
        return (
            f"    R(y) = 1 + {params.alpha} · log(1 + {scale} · (1 - min(L(y) / B, 1))) / log(1 + {scale}) if y is "
            f"correct, 0 if not\n\nwhere L(y) is y's length in tokens, and B is {params.budget} times the mean length "
            "of all correct solutions."
        )
