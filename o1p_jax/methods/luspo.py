"""LUSPO, length-unbiased sequence policy optimization (arXiv 2602.05261): GSPO's loss times the length.

    R(y)  = A(y)
    loss  = -min(r W, clip(r, 1 - epsilon, 1 + epsilon_high) W) L(y) / Lbar

The geometric ratio's gradient is the mean over a sequence's tokens, so that a long one moves each of its tokens less;
times its length, every token moves alike. L(y) > 0 may as well stand in the weight: W L / Lbar is this method's. Lbar,
the mean length of all kept samples, is not the paper's and keeps the loss at its size. Clip range by TRL's recipe from
the paper's section 5.1. Left out: fresh samples, the penalty near the token limit. A length reward is the user's
(--method.reward), since this is an objective for any.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class LUSPOParams(RewardedParams):
    """Correctness alone, each token weighed alike (arXiv 2602.05261)."""

    name: str = option("luspo", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    epsilon: float = option(0.002, TRAINING)
    """The clip range of the ratio begins at 1 - epsilon; the authors: 0.002."""
    epsilon_high: float | None = option(0.0025, TRAINING, least=0)
    """The clip range of the ratio ends at 1 + epsilon_high; the authors: 0.0025; None: 1 + epsilon."""


class LUSPO(Rewarded):
    title = "LUSPO, length-unbiased sequence policy optimization"
    paper = "arXiv 2602.05261"
    Params = LUSPOParams

    def reward(self, group: Group, params: LUSPOParams) -> Float[np.ndarray, " K"]:
        return group.correct_K.astype(np.float64)

    def advantage(self, scored: Scored, params: LUSPOParams) -> Float[np.ndarray, " N"]:
        length_N = scored.group_N.counted_K.astype(np.float64)
        kept = length_N[scored.kept_n]
        return super().advantage(scored, params) * length_N / (kept.mean() if kept.size else 1.0)

    def formula(self, params: LUSPOParams) -> str:
        return "    R(y) = 1 if y is correct, 0 if not"

    def weighed_how(self, params: LUSPOParams) -> str:
        return f"{super().weighed_how(params)} and times its length over the mean length of all kept solutions"
