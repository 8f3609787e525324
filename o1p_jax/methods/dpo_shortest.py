"""DPO on the shortest correct samples against the longest, O1-Pruner's strongest baseline (arXiv 2501.12570).

    pairs: each of the m shortest correct samples, with the problem's longest sample as the loser
    loss = -log sigmoid(beta (h(y_w) - h(y_l))),   h(y) = log pi_theta(y) - log pi_ref(y)      arXiv 2305.18290, eq. 7

beta 0.1 by the authors' configuration (`examples/math/Marco-dpo.yaml`, learning rate 5e-8); their script that makes the
pairs is not public: whether the longest must be wrong is not said, and here it need not be. A sample that is as long as
the longest wins against nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Sequences
from o1p_jax.methods.pairs import PairParams, Pairs, as_pairs, by_length
from o1p_jax.methods.rewarded import link
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, check, option


@dataclass(frozen=True, kw_only=True)
class DPOShortestParams(PairParams):
    """DPO, the shortest correct samples against the longest (arXiv 2501.12570, section 5)."""

    name: str = option("dpo_shortest", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    m: int = option(2, WEIGHTS, least=1)
    """How many of a problem's shortest correct samples win, each against the longest sample."""
    beta: float = option(0.1, TRAINING, least=1e-6, most=1e6)
    """How far the model may move from the reference model for a pair: a higher beta holds it closer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "reward", self.reward is None, f"method={self.name} has no use for a reward; leave it out")


class DPOShortest(Pairs):
    title = "DPO on the shortest correct solutions"
    paper = "arXiv 2501.12570, section 5; arXiv 2305.18290"
    Params = DPOShortestParams

    def reward(self, group: Group, params: DPOShortestParams) -> Float[np.ndarray, " K"]:
        """Returns 1 for correct samples: the pairs depend on correctness and length alone."""
        return group.correct_K.astype(np.float64)

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: DPOShortestParams,
    ) -> Int[np.ndarray, "U 2"]:  # fmt: skip
        """Returns at most m pairs: the shortest correct samples, each with the longest sample."""
        order = [k for k in by_length(group, lot_K) if usable_K[k]]
        length_K = group.counted_K
        winners = [k for k in order if group.correct_K[k] and length_K[k] < length_K[order[-1]]]
        return as_pairs([(k, order[-1]) for k in winners[: params.m]])

    def objective(self, sequences: Sequences, params: DPOShortestParams) -> Any:
        """Returns the pairs' DPO losses, summed."""
        from o1p_jax.methods.objectives import dpo_losses

        return dpo_losses(sequences, params.beta)

    def card(self, params: DPOShortestParams, reward: str | None) -> str:
        """Returns the pairs and their loss in words."""
        return (
            f"The method is {self.title} ({link(self.paper)}): of each problem, the {params.m} shortest correct "
            "solutions were pairs with the longest one, and training lowered the mean of -log sigmoid("
            f"{params.beta} · (h(better) - h(worse))), where h is the log-likelihood ratio of a solution to the model "
            "before training."
        )
