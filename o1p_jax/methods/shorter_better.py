"""ShorterBetter (arXiv 2504.21370, equation 2).

    R(y) = alpha A(y) - beta |L(y) - SOL|

SOL, the sample-optimal length, is the shortest correct sample's; where no sample is correct, the mean length. alpha and
beta as in the authors' code. Left out: fresh samples in each step.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class ShorterBetterParams(RewardedParams):
    """Samples should be as long as the shortest correct one (arXiv 2504.21370)."""

    name: str = option("shorter_better", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(2.0, WEIGHTS, least=0, most=1e6)
    """What a correct sample earns."""
    beta: float = option(0.001, WEIGHTS, least=0, most=1e6)
    """What a token of distance from the sample-optimal length costs."""


class ShorterBetter(Rewarded):
    title = "ShorterBetter"
    paper = "arXiv 2504.21370"
    Params = ShorterBetterParams

    def reward(self, group: Group, params: ShorterBetterParams) -> Float[np.ndarray, " K"]:
        length_K = group.counted_K.astype(np.float64)
        optimal = length_K[group.correct_K].min() if group.correct_K.any() else length_K.mean()
        return params.alpha * group.correct_K - params.beta * np.abs(length_K - optimal)

    def formula(self, params: ShorterBetterParams) -> str:
        return (
            f"    R(y) = {params.alpha} · A(y) - {params.beta} · |L(y) - SOL|\n\nwhere A(y) is 1 if y is correct and 0 "
            "if not, L(y) is y's length in tokens, and SOL the length of the problem's shortest correct solution, or "
            "the mean length where none is correct."
        )
