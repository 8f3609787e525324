"""What methods share that differ from each other in their rewards: choice, advantages, clipped objective and card.

The authors of such methods train on fresh samples, most of them with GRPO or one of its kin. Here all samples come from
one pool that the reference model gave, so that their old policy is the reference model and stays it:

    r(y)  = (pi_theta(y) / pi_ref(y))^(1 / L(y))                           the ratio, as O1-Pruner's and GSPO's
    loss  = -min(r W, clip(r, 1 - epsilon, 1 + epsilon_high) W)            the objective, per sequence

At r = 1 its gradient is GRPO's: the advantage times the mean gradient of the tokens' log-probabilities. Left out
everywhere: KL terms, entropy bonuses, per-token ratios, and whatever follows the model while it changes.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Method, Params, Scored, Sequences, first_by_lot
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, check, option

Normalize = Literal["group", "mean", "leave_one_out", "batch", "none"]

FLOOR = 1e-8  # rewards are of order 1; below this they differ by rounding only

_WEIGHTS_OF = {
    "group": "z-scored over the problem's solutions",
    "mean": "from which the mean over the problem's solutions is taken",
    "leave_one_out": "from which the mean over the problem's other solutions is taken",
    "batch": "from which the mean over the problem's solutions is taken, divided by the standard deviation over all",
    "none": "as it is",
}


@dataclass(frozen=True, kw_only=True)
class RewardedParams(Params):
    """What every method with a reward of its own lets a run choose."""

    NORMALIZE: ClassVar[Normalize] = "group"
    """What the method's authors do."""

    normalize: Literal["group", "mean", "leave_one_out", "batch", "none"] | None = option(None, WEIGHTS)
    """How rewards become advantages: group, (R - mean) / std over a problem's samples (GRPO); mean, R - mean;
    leave_one_out, R - mean of the others; batch, R - mean over the std of all problems; none, R. Left out: as the
    method's authors do."""
    epsilon: float = option(0.2, TRAINING)
    """The clip range of the ratio begins at 1 - epsilon."""
    epsilon_high: float | None = option(None, TRAINING, least=0)
    """The clip range of the ratio ends at 1 + epsilon_high; left out: 1 + epsilon."""
    truncated: Literal["keep", "drop"] = option("keep", WEIGHTS)
    """Samples cut off by max_tokens: trained on like others, or dropped (the others are compared with them still)."""
    max_log_ratio: float = option(20.0, TRAINING)
    """The log of the ratio is clamped to +-this before exp, and the clamped sequences are counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "epsilon", 0 < self.epsilon < 1, "must lie in (0, 1)")
        check(self, "max_log_ratio", 0 < self.max_log_ratio <= 80, "must lie in (0, 80]: float32 holds no exp of more")

    def resolved(self) -> dict[str, Any]:
        return {"normalize": self.normalization, "epsilon_high": self.clip_high}

    @property
    def normalization(self) -> Normalize:
        return self.normalize or self.NORMALIZE

    @property
    def clip_high(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


class Rewarded(Method):
    """A method that is its reward: a file of it gives `title`, `paper`, `Params`, `reward` and `formula`."""

    def formula(self, params: Any) -> str:
        """Returns the reward of a solution y, and what its letters stand for, as Markdown for the model card."""
        raise NotImplementedError

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: Any,
    ) -> Int[np.ndarray, "U 1"]:  # fmt: skip
        """Returns at most m samples, by lot; none where the rewards are all equal, so that all advantages are 0."""
        allowed_K = usable_K & ~group.truncated_K if params.truncated == "drop" else usable_K
        same = params.normalization != "none" and np.ptp(reward_K) <= FLOOR
        return first_by_lot(allowed_K, lot_K, 0 if same else params.m)

    def advantage(self, scored: Scored, params: Any) -> Float[np.ndarray, " N"]:
        """Returns the rewards, compared within each problem as `normalize` says."""
        return normalized(scored.reward_N, scored, params.normalization)

    def objective(self, sequences: Sequences, params: Any) -> Any:
        """Returns the clipped losses of the sequences, summed."""
        from o1p_jax.methods.objectives import clipped_losses

        return clipped_losses(sequences, "geometric", params.max_log_ratio, params.epsilon, params.clip_high)

    def card(self, params: Any, reward: str | None) -> str:
        """Returns the formulas with the values that were used; a `reward` takes the place of the reward's formula."""
        earned = f"A solution y earns\n\n{self.formula(params)}\n\n"
        if reward is not None:
            earned = f"The method's own reward was not used: the reward R(y) of a solution y is {reward}. "
        return (
            f"The method is {self.title} ({link(self.paper)}), on one pool of the base model's solutions. "
            f"{earned}m = {params.m} solutions of each problem were kept{self.kept_how(params)}. A solution's weight W "
            f"is its reward, {self.weighed_how(params)}, and training lowered the mean of -min(r · W, clip(r, 1 - "
            f"{params.epsilon}, 1 + {params.clip_high}) · W), r being the ratio of a solution's probabilities "
            "under the model and its base, as the geometric mean over its tokens."
        )

    def kept_how(self, params: Any) -> str:
        """Returns, for the card, how the samples were chosen."""
        return " at random"

    def weighed_how(self, params: Any) -> str:
        """Returns, for the card, what was done with the rewards."""
        return _WEIGHTS_OF[params.normalization]


def normalized(
    reward_N: Float[np.ndarray, " N"], scored: Scored, how: Normalize, among_N: Bool[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, " N"]:
    """Returns the advantages of the samples, of which those of a problem are compared with each other.

    `among_N` says which samples the others are compared with; left out: all decided ones. Where a standard deviation
    is 0, the advantages are 0. That of `batch` is over the samples of problems that are trained on.
    """
    if how == "none":
        return reward_N
    among_N = np.ones_like(reward_N, bool) if among_N is None else among_N
    count_N = np.maximum(scored.sum_N(among_N), 1.0)
    centred_N = reward_N - scored.sum_N(reward_N * among_N) / count_N
    if how == "mean":
        return centred_N
    if how == "leave_one_out":
        return centred_N * count_N / np.maximum(count_N - 1.0, 1.0)
    square_N = centred_N**2 * among_N
    if how == "group":
        std_N = np.sqrt(scored.sum_N(square_N) / count_N)
    else:
        taught_N = among_N & scored.taught_N
        std_N = np.full_like(reward_N, np.sqrt(square_N[taught_N].mean()) if taught_N.any() else 0.0)
    return np.divide(centred_N, std_N, out=np.zeros_like(centred_N), where=std_N > FLOOR)


def standardized(value_K: Float[np.ndarray, " K"], among_K: Bool[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Returns (value - mean) / std, both over those among `among_K` (ddof 0); 0 where they do not differ, or aren't."""
    if not among_K.any() or np.ptp(value_K[among_K]) <= FLOOR:
        return np.zeros_like(value_K)
    return (value_K - value_K[among_K].mean()) / value_K[among_K].std()


def link(paper: str) -> str:
    """Returns the paper as a Markdown link to arXiv."""
    found = re.search(r"arXiv (\d+\.\d+)", paper)
    return f"[{paper}](https://arxiv.org/abs/{found[1]})" if found else paper
