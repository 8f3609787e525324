"""ALP, adaptive length penalty (arXiv 2506.05256).

    R(y) = A(y) - beta L(y) max(p, 1 / K)

p is the share of the problem's K samples that is correct: what is easy must be short. The formula as method.md has it;
the authors' code was not found, and neither was their beta: 1e-7 a token is a guess at their order of magnitude that a
run should choose for its own lengths. Left out: fresh samples in each step.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class ALPParams(RewardedParams):
    """Every token costs, the more the easier the problem is (arXiv 2506.05256)."""

    name: str = option("alp", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    beta: float = option(1e-7, WEIGHTS, least=0, most=1e6)
    """What a token costs where every sample is right."""


class ALP(Rewarded):
    title = "ALP, the adaptive length penalty"
    paper = "arXiv 2506.05256"
    Params = ALPParams

    def reward(self, group: Group, params: ALPParams) -> Float[np.ndarray, " K"]:
        solved = max(group.correct_K.mean(), 1 / len(group.correct_K))
        return group.correct_K - params.beta * solved * group.counted_K

    def formula(self, params: ALPParams) -> str:
        return (
            f"    R(y) = A(y) - {params.beta} · L(y) · max(p, 1 / K)\n\nwhere A(y) is 1 if y is correct and 0 if not, "
            "L(y) is y's length in tokens, and p the share of the problem's K solutions that is correct."
        )
