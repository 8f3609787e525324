"""DAST, difficulty-adaptive slow thinking (arXiv 2503.04472): SimPO on pairs by a budget for the difficulty.

    budget = p Lbar + (1 - p) Lmax            p: share correct, Lbar: mean length of the correct, Lmax: longest possible
    d      = (L(y) - budget) / budget
    R(y)   = max(0.5 - 0.5 d, 0.1) if A(y), else min(0.9 d - 0.1, -0.1)
    pairs: the best against the worst correct sample, and the best against the worst wrong one, where their R differ
           by `margin`
    loss   = -log sigmoid(beta log pi(y_w) / L(y_w) - beta log pi(y_l) / L(y_l) - gamma)

By a reader's notes that quote the paper's section 3. There the margin is a threshold of 0.15 to 0.18, without which
samples grow longer; the notes take it for the share of pairs that is dropped, here it is one for each pair. beta and
gamma are SimPO's usual ones (arXiv 2405.14734): DAST's were not found. Right against wrong brought them nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Sequences
from o1p_jax.methods.pairs import PairParams, Pairs, as_pairs
from o1p_jax.methods.rewarded import link
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class DASTParams(PairParams):
    """SimPO on pairs of right and of wrong samples, by a length budget for the difficulty (arXiv 2503.04472)."""

    name: str = option("dast", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    m: int = option(2, WEIGHTS, least=1)
    """The most pairs of a problem; those that differ most come first."""
    longest: int | None = option(None, WEIGHTS, least=1)
    """Lmax, the budget of a problem without a right sample, in tokens; left out: the pool's longest sample."""
    margin: float = option(0.15, WEIGHTS, least=1e-6, most=2)
    """By how much the rewards of a pair must differ."""
    beta: float = option(2.0, TRAINING, least=1e-6, most=1e6)
    """The scale of the log-probabilities a token that are compared."""
    gamma: float = option(1.0, TRAINING, least=0, most=1e6)
    """By how much the winner's must be higher."""


class DAST(Pairs):
    title = "DAST, difficulty-adaptive slow thinking"
    paper = "arXiv 2503.04472, section 3"
    Params = DASTParams

    def reward(self, group: Group, params: DASTParams) -> Float[np.ndarray, " K"]:
        """Returns the rewards where this problem is the whole pool."""
        return self.rewards([group], params)[0]

    def rewards(self, groups: Sequence[Group], params: DASTParams) -> list[Float[np.ndarray, " K"]]:
        longest = params.longest or max((group.counted_K.max() for group in groups), default=1)
        rewards = []
        for group in groups:
            right_K, length_K, solved = group.correct_K, group.counted_K, group.correct_K.mean()
            budget = (1 - solved) * longest + (solved * length_K[right_K].mean() if solved else 0.0)
            over_K = (length_K - budget) / budget
            paid_K, fined_K = np.maximum(0.5 - 0.5 * over_K, 0.1), np.minimum(0.9 * over_K - 0.1, -0.1)
            rewards.append(np.where(right_K, paid_K, fined_K))
        return rewards

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: DASTParams,
    ) -> Int[np.ndarray, "U 2"]:  # fmt: skip
        """Returns at most m pairs, one of right and one of wrong samples, by lot among equals."""
        order = np.lexsort((lot_K, reward_K))
        pairs = []
        for same in (group.correct_K, ~group.correct_K):
            if ends := [k for k in order if usable_K[k] and same[k]]:
                pairs.append((reward_K[ends[-1]] - reward_K[ends[0]], ends[-1], ends[0]))
        pairs.sort(key=lambda pair: -pair[0])
        return as_pairs([pair[1:] for pair in pairs if pair[0] >= params.margin][: params.m])

    def objective(self, sequences: Sequences, params: DASTParams) -> Any:
        """Returns the pairs' SimPO losses, summed."""
        from o1p_jax.methods.objectives import simpo_losses

        return simpo_losses(sequences, params.beta, params.gamma)

    def card(self, params: DASTParams, reward: str | None) -> str:
        """Returns the pairs, by which reward they were made, and their loss, in words."""
        earned = reward or (
            "by its distance d, as a share, from a budget of p times the mean length of the problem's correct ones "
            "plus 1 - p times the longest possible (p: their share), max(0.5 - 0.5 d, 0.1) if it is correct and "
            "min(0.9 d - 0.1, -0.1) if not"
        )
        return (
            f"The method is {self.title} ({link(self.paper)}). A solution's reward is {earned}. Of each problem, the "
            "correct solutions with the highest and lowest reward were a pair, and so were the wrong ones, where these "
            f"differ by {params.margin} or more. Training lowered the mean of -log sigmoid({params.beta} · "
            f"(g(better) - g(worse)) - {params.gamma}), where g is a solution's mean log-probability a token."
        )
