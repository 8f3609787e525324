"""DeepCompress (arXiv 2510.27419): short samples of easy problems, long ones of hard problems.

    R(y) = 1 + alpha sigmoid(-beta z(y)) if A(y), else -1
    beta = share correct of the problem - mean of that share over all problems

z is the length, standardised over all of the problem's samples. By a review of the ICLR 2026 paper that copies its
equations; alpha 0.2 is one of the three that it tried. Left out: fresh samples, and the moving average of the batches'
mean, which the pool's own mean stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams, standardized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class DeepCompressParams(RewardedParams):
    """Right samples are paid for being short on easy problems and long on hard ones (arXiv 2510.27419)."""

    name: str = option("deep_compress", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(0.2, WEIGHTS, least=0, most=1e6)
    """The weight of length."""


class DeepCompress(Rewarded):
    title = "DeepCompress"
    paper = "arXiv 2510.27419"
    Params = DeepCompressParams

    def reward(self, group: Group, params: DeepCompressParams) -> Float[np.ndarray, " K"]:
        """Returns the rewards where this problem is the whole pool."""
        return self.rewards([group], params)[0]

    def rewards(self, groups: Sequence[Group], params: DeepCompressParams) -> list[Float[np.ndarray, " K"]]:
        solved = [group.correct_K.mean() for group in groups]
        rewards = []
        for group, share in zip(groups, solved, strict=True):
            length_K = group.counted_K.astype(np.float64)
            z_K = standardized(length_K, np.ones_like(group.correct_K))
            bonus_K = params.alpha / (1.0 + np.exp((share - np.mean(solved)) * z_K))
            rewards.append(np.where(group.correct_K, 1.0 + bonus_K, -1.0))
        return rewards

    def formula(self, params: DeepCompressParams) -> str:
        return (
            f"    R(y) = 1 + {params.alpha} · sigmoid(-b · z(y)) if y is correct, -1 if not\n\n"
            "where z(y) is y's length, standardised over the problem's solutions, and b the share of them that is "
            "correct, less the mean of that share over all problems."
        )
