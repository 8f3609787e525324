"""SFT on the shortest correct samples, a baseline of O1-Pruner (arXiv 2501.12570).

    kept: the m shortest correct samples of each problem
    loss = -w log pi_theta(y),   w = 1 / Lbar (token) or 1 / L(y) (sequence)

Lbar is the mean length of all kept samples. With `token`, every token counts alike, as in the authors' framework
(LLaMA-Factory: the mean over a batch's tokens, whose number stands here as it is expected); with `sequence`,
every sample does. The authors: m = 2, learning rate 1e-6, 2 epochs (`examples/math/Marco-sft-shortest.yaml`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Method, Params, Scored, Sequences
from o1p_jax.methods.pairs import by_length
from o1p_jax.methods.rewarded import link
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, check, option


@dataclass(frozen=True, kw_only=True)
class SFTShortestParams(Params):
    """Supervised fine-tuning on the shortest correct samples (arXiv 2501.12570, section 5)."""

    name: str = option("sft_shortest", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    m: int = option(2, WEIGHTS, least=1)
    """How many of a problem's shortest correct samples are trained on."""
    alike: Literal["token", "sequence"] = option("token", WEIGHTS)
    """What counts alike: every token, or every sample, whose tokens then count less the more they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "reward", self.reward is None, f"method={self.name} has no use for a reward; leave it out")


class SFTShortest(Method):
    title = "supervised fine-tuning on the shortest correct solutions"
    paper = "arXiv 2501.12570, section 5"
    Params = SFTShortestParams

    def reward(self, group: Group, params: SFTShortestParams) -> Float[np.ndarray, " K"]:
        """Returns 1 for correct samples: the choice depends on correctness and length alone."""
        return group.correct_K.astype(np.float64)

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: SFTShortestParams,
    ) -> Int[np.ndarray, "U 1"]:  # fmt: skip
        """Returns the m shortest correct samples, by lot among equals."""
        order_K = by_length(group, lot_K)
        return order_K[(usable_K & group.correct_K)[order_K]][: params.m, None]

    def advantage(self, scored: Scored, params: SFTShortestParams) -> Float[np.ndarray, " N"]:
        """Returns what a sample's log-probability is multiplied with: 1 over its length, or over the mean length."""
        length_N = scored.group_N.counted_K.astype(np.float64)
        if params.alike == "token" and scored.kept_n.size:
            length_N = np.full_like(length_N, length_N[scored.kept_n].mean())
        return 1.0 / length_N

    def objective(self, sequences: Sequences, params: SFTShortestParams) -> Any:
        """Returns the negative log-likelihoods of the sequences times their weights, summed."""
        from o1p_jax.methods.objectives import likelihood_losses

        return likelihood_losses(sequences)

    def card(self, params: SFTShortestParams, reward: str | None) -> str:
        """Returns the choice and the loss in words."""
        return (
            f"The method is {self.title} ({link(self.paper)}): the {params.m} shortest correct solutions of each "
            f"problem, next-token loss, every {params.alike} counting alike."
        )
