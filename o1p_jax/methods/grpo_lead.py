"""GRPO-LEAD (arXiv 2504.09696, sections 3.1 to 3.3).

    R(y) = exp(-alpha z(y)) if A(y), else -1              z: length, standardised over the problem's correct samples
    W(y) = G(y) w(p) where G(y) > 0, G(y) w(1 - p) else   G: (R - mean) / std over the problem; p: its share correct
    w(p) = weight_low + (weight_high - weight_low) / (1 + exp(steep (p - middle)))

alpha and -1 by the authors' code (`verl/trainer/main_ppo.py`), the four numbers of w by a re-implementation
(grpo-composer) that quotes the paper's table. Left out: fresh samples, and the code's rule that leaves problems alone
whose three shortest samples have less than 4,000 tokens on average.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.rewarded import Rewarded, RewardedParams, standardized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class GRPOLeadParams(RewardedParams):
    """Shorter right samples earn more, wrong ones cost, hard problems weigh more (arXiv 2504.09696)."""

    name: str = option("grpo_lead", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(0.05, WEIGHTS, least=0, most=10)
    """How fast the reward falls with the standardised length."""
    weight_low: float = option(0.4, WEIGHTS, least=0, most=1e6)
    """The weight of advantages where w's argument is 1."""
    weight_high: float = option(1.5, WEIGHTS, least=0, most=1e6)
    """The weight of advantages where w's argument is 0."""
    middle: float = option(0.75, WEIGHTS, least=0, most=1)
    """The argument at which the weight lies halfway."""
    steep: float = option(10.0, WEIGHTS, least=0, most=1000)
    """How steep the weight falls there."""


class GRPOLead(Rewarded):
    title = "GRPO-LEAD"
    paper = "arXiv 2504.09696, section 3"
    Params = GRPOLeadParams

    def reward(self, group: Group, params: GRPOLeadParams) -> Float[np.ndarray, " K"]:
        z_K = standardized(group.counted_K.astype(np.float64), group.correct_K)
        return np.where(group.correct_K, np.exp(-params.alpha * np.where(group.correct_K, z_K, 0.0)), -1.0)

    def advantage(self, scored: Scored, params: GRPOLeadParams) -> Float[np.ndarray, " N"]:
        advantage_N = super().advantage(scored, params)
        correct_N = scored.group_N.correct_K
        solved_N = scored.sum_N(correct_N) / scored.sum_N(np.ones(len(correct_N)))
        at_N = np.where(advantage_N > 0, solved_N, 1.0 - solved_N)
        span = params.weight_high - params.weight_low
        weight_N = params.weight_low + span / (1.0 + np.exp(params.steep * (at_N - params.middle)))
        return advantage_N * weight_N

    def formula(self, params: GRPOLeadParams) -> str:
        return (
            f"    R(y) = exp(-{params.alpha} · z(y)) if y is correct, -1 if not\n\nwhere z(y) is y's length, "
            "standardised over the problem's correct solutions."
        )

    def weighed_how(self, params: GRPOLeadParams) -> str:
        span = params.weight_high - params.weight_low
        return (
            f"{super().weighed_how(params)} and times {params.weight_low} + {span:g} / (1 + exp({params.steep} · "
            f"(p - {params.middle}))), where p is the share of the problem's solutions that is correct, or 1 - that "
            "share for a negative weight"
        )
