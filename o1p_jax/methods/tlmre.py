"""TLMRE, training language models to reason efficiently (arXiv 2502.04463, section 3).

    R(y) = A(y) (1 - alpha sigmoid((L(y) - mu) / sigma))

mu and sigma are over the lengths of the problem's correct samples, and the baseline is leave-one-out. By the paper and
the re-implementation in LASER's code (`compute_norm_length_penalty`). Left out: fresh samples in each step.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Normalize, Rewarded, RewardedParams, standardized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class TLMREParams(RewardedParams):
    """Right samples earn less the longer they are (arXiv 2502.04463)."""

    NORMALIZE: ClassVar[Normalize] = "leave_one_out"

    name: str = option("tlmre", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(0.2, WEIGHTS, least=0, most=1)
    """The weight of length: 0 is the plain 0/1 reward; the authors: 0.05 to 0.4."""


class TLMRE(Rewarded):
    title = "TLMRE, training language models to reason efficiently"
    paper = "arXiv 2502.04463, section 3"
    Params = TLMREParams

    def reward(self, group: Group, params: TLMREParams) -> Float[np.ndarray, " K"]:
        z_K = standardized(group.counted_K.astype(np.float64), group.correct_K)
        return group.correct_K * (1.0 - params.alpha / (1.0 + np.exp(-z_K)))

    def formula(self, params: TLMREParams) -> str:
        return (
            f"    R(y) = A(y) · (1 - {params.alpha} · sigmoid((L(y) - mean) / std))\n\nwhere A(y) is 1 if y is correct "
            "and 0 if not, L(y) is y's length in tokens, and mean and std are over the problem's correct solutions."
        )
