"""GFPO, group filtered policy optimization (arXiv 2508.09726): train on the best m of many by length or by efficiency.

    R(y) = A(y)
    kept: the m shortest samples, or the m with the most reward a token
    W(y) = (R(y) - mean) / std, both over the kept samples of the problem

By the paper's abstract, and TRL's experimental GFPO for the statistics over the kept. Left out: fresh samples, DAPO's
token-level loss, the authors' own shaped 0/1 reward, and the adaptive m of their third variant.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.rewarded import FLOOR, Rewarded, RewardedParams, normalized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class GFPOParams(RewardedParams):
    """Of many samples the shortest, or the most efficient ones, are trained on (arXiv 2508.09726)."""

    name: str = option("gfpo", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    best: Literal["shortest", "efficient"] = option("shortest", WEIGHTS)
    """Which m samples are kept: the shortest, or those with the most reward a token."""


class GFPO(Rewarded):
    title = "GFPO, group filtered policy optimization"
    paper = "arXiv 2508.09726"
    Params = GFPOParams

    def reward(self, group: Group, params: GFPOParams) -> Float[np.ndarray, " K"]:
        return group.correct_K.astype(np.float64)

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: GFPOParams,
    ) -> Int[np.ndarray, "U 1"]:  # fmt: skip
        """Returns the best m samples, by lot among equals; none where their rewards are equal."""
        allowed_K = usable_K & ~group.truncated_K if params.truncated == "drop" else usable_K
        length_K = group.counted_K
        order_K = np.lexsort((lot_K, length_K if params.best == "shortest" else -reward_K / length_K))
        kept = order_K[allowed_K[order_K]][: params.m]
        same = params.normalization != "none" and (not len(kept) or np.ptp(reward_K[kept]) <= FLOOR)
        return kept[: 0 if same else None, None]

    def advantage(self, scored: Scored, params: GFPOParams) -> Float[np.ndarray, " N"]:
        kept_N = np.zeros_like(scored.reward_N, bool)
        kept_N[scored.kept_n] = True
        return normalized(scored.reward_N, scored, params.normalization, kept_N)

    def formula(self, params: GFPOParams) -> str:
        return "    R(y) = 1 if y is correct, 0 if not"

    def kept_how(self, params: GFPOParams) -> str:
        return ", the shortest ones" if params.best == "shortest" else ", those with the most reward a token"

    def weighed_how(self, params: GFPOParams) -> str:
        return f"{super().weighed_how(params)}, of them only those that were kept"
