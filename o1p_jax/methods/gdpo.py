"""GDPO, group reward-decoupled normalization (arXiv 2601.05242): each reward is normalised apart, then their sum.

    R1(y) = A(y)                    R2(y) = 1[L(y) <= limit], and A(y) where `conditioned`
    G(y)  = (R1 - mean) / std + weight (R2 - mean) / std         means and stds over the problem, 0 where a std is 0
    W(y)  = (G(y) - mean) / std                                  over all problems that are trained on

By the authors' code (README, TRL and verl versions). `conditioned`, a length reward for right samples only, is one
of the paper's two forms for mathematics. Left out: fresh samples; the batch is the whole pool. A user's own reward is
one: it is normalised over the problem, then over all.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.rewarded import FLOOR, Rewarded, RewardedParams, normalized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class GDPOParams(RewardedParams):
    """Correctness and a length limit, normalised each by itself (arXiv 2601.05242)."""

    name: str = option("gdpo", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    limit: int = option(4000, WEIGHTS, least=1)
    """The number of tokens within which a sample earns the length reward; the authors: 4000."""
    weight: float = option(1.0, WEIGHTS, least=0, most=1e6)
    """The weight of the length reward, after its normalisation."""
    conditioned: bool = option(True, WEIGHTS)
    """The length reward is for right samples only."""


class GDPO(Rewarded):
    title = "GDPO, group reward-decoupled normalization"
    paper = "arXiv 2601.05242"
    Params = GDPOParams

    def reward(self, group: Group, params: GDPOParams) -> Float[np.ndarray, " K"]:
        """Returns the sum of the two rewards as they are; the advantages are made of each by itself."""
        return group.correct_K + params.weight * _within(group, params)

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: GDPOParams,
    ) -> Int[np.ndarray, "U 1"]:  # fmt: skip
        """Returns at most m samples, by lot; none where neither reward tells one sample from another."""
        told = np.array(reward_K)
        if params.reward is None and np.ptp(told) <= FLOOR:  # two rewards that differ may have equal sums
            told = group.correct_K * 1.0
        return super().choose(group, told, lot_K, usable_K, params)

    def advantage(self, scored: Scored, params: GDPOParams) -> Float[np.ndarray, " N"]:
        advantage_N = normalized(scored.reward_N, scored, params.normalization)
        if params.reward is None:
            advantage_N = normalized(scored.group_N.correct_K * 1.0, scored, params.normalization)
            within_N = _within(scored.group_N, params) * 1.0
            advantage_N = advantage_N + params.weight * normalized(within_N, scored, params.normalization)
        taught_n = advantage_N[scored.taught_N]
        std = taught_n.std() if taught_n.size else 0.0
        return (advantage_N - taught_n.mean()) / std if std > FLOOR else np.zeros_like(advantage_N)

    def formula(self, params: GDPOParams) -> str:
        right = "correct and " if params.conditioned else ""
        return (
            f"    R1(y) = 1 if y is correct, 0 if not\n    R2(y) = 1 if y is {right}at most {params.limit:,} tokens "
            "long, 0 if not"
        )

    def weighed_how(self, params: GDPOParams) -> str:
        return f"{super().weighed_how(params)}, each reward by itself, added up (R2 times {params.weight}) and z-scored"


def _within(group: Group, params: GDPOParams) -> Bool[np.ndarray, " K"]:
    within_K = group.counted_K <= params.limit
    return within_K & group.correct_K if params.conditioned else within_K
