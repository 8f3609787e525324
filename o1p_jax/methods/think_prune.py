"""ThinkPrune (arXiv 2504.01296, section 3): what does not fit a limit is wrong.

    R(y) = 1 if A(y) and L(y) <= limit, else 0

The pool is graded again as if sampling had stopped at the limit. Left out: fresh samples, and the stages in which the
authors lower the limit (4000, 3000, 2000 tokens); a run has one limit, the next round may have a lower one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class ThinkPruneParams(RewardedParams):
    """A sample that does not fit a limit counts as wrong (arXiv 2504.01296)."""

    name: str = option("think_prune", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    limit: int = option(4000, WEIGHTS, least=1)
    """The most tokens that a sample may have."""


class ThinkPrune(Rewarded):
    title = "ThinkPrune"
    paper = "arXiv 2504.01296, section 3"
    Params = ThinkPruneParams

    def reward(self, group: Group, params: ThinkPruneParams) -> Float[np.ndarray, " K"]:
        return (group.correct_K & (group.counted_K <= params.limit)).astype(np.float64)

    def formula(self, params: ThinkPruneParams) -> str:
        return f"    R(y) = 1 if y is correct and has at most {params.limit:,} tokens, 0 if not"
