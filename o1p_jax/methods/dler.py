"""DLER, doing length penalty right (arXiv 2510.15110): a cut at a limit, with advantages over the whole batch.

    R(y) = 1 if A(y) and L(y) <= limit, else 0
    W(y) = (R(y) - mean over the problem) / std over all problems that are trained on

Problems whose rewards are all 0 or all 1 are dropped, and the clip range is wider above (0.2 below, 0.28 above). The
authors' code is not public: by the paper's abstract and method.md's facts. Left out: fresh samples, refilling of the
batch in place of dropped problems, and the difficulty-aware limits of DA-DLER. The batch is the whole pool.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Normalize, Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class DLERParams(RewardedParams):
    """A sample that does not fit a limit counts as wrong; advantages over the whole batch (arXiv 2510.15110)."""

    NORMALIZE: ClassVar[Normalize] = "batch"

    name: str = option("dler", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    limit: int = option(4000, WEIGHTS, least=1)
    """The most tokens that a sample may have; the authors: 4000."""
    epsilon_high: float | None = option(0.28, TRAINING, least=0)
    """The clip range of the ratio ends at 1 + epsilon_high; left out: 1 + epsilon."""


class DLER(Rewarded):
    title = "DLER, doing length penalty right"
    paper = "arXiv 2510.15110"
    Params = DLERParams

    def reward(self, group: Group, params: DLERParams) -> Float[np.ndarray, " K"]:
        return (group.correct_K & (group.counted_K <= params.limit)).astype(np.float64)

    def formula(self, params: DLERParams) -> str:
        return f"    R(y) = 1 if y is correct and has at most {params.limit:,} tokens, 0 if not"
