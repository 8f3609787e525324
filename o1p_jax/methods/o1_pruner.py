"""O1-Pruner, length-harmonizing fine-tuning (arXiv 2501.12570), from the reward to the objective.

Of a problem's K samples, y has length L(y) and correctness A(y), 0 or 1; Lbar and Abar are the means over the K, or
over the reference model's samples where another model gave the K (`Group.reference`).

    R(y)  = Lbar / L(y) - 1 + lam * (A(y) - Abar)                      the reward
            lam * (A(y) - Abar) where A(y) = 0 and length_term=correct_only
    W(y)  = R(y), or its z-score over all samples that are kept        the weight
    r(y)  = pi_theta(y) / pi_ref(y)                                    the ratio, over the whole sequence
    loss  = -min(r W, clip(r, 1 - epsilon, 1 + epsilon) W)             the objective, per sequence

There is no KL term, no critic and no entropy term.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.methods.base import Group, Method, Params, Scored, Sequences, first_by_lot
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, check, option

_STD_FLOOR = 1e-8  # rewards are of order 1; below this they differ by rounding only


@dataclass(frozen=True, kw_only=True)
class O1PrunerParams(Params):
    """Length-harmonizing reward and clipped objective (arXiv 2501.12570, section 4)."""

    BY_MEANS: ClassVar[bool] = True

    name: str = option("o1_pruner", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME, or --method.name, chooses another method and its defaults."""
    mode: Literal["code", "paper"] = option("code", WEIGHTS, TRAINING)
    """`code`: what produced the authors' checkpoints (geometric ratio, clipped and z-scored rewards).
    `paper`: the formulas as printed (whole-sequence ratio, raw rewards). Fields left out follow the mode."""
    lam: float = option(2.0, WEIGHTS, least=0, most=1e6)
    """lambda, the weight of correctness against length; the authors: 2 for Marco-o1-7B, 5 for QwQ-32B-Preview."""
    length_term: Literal["all", "correct_only"] = option("all", WEIGHTS)
    """Whose reward has the length term: every sample's, as in the paper, or the correct ones' only, so that a wrong
    sample is never paid for being short. Means are over all samples either way."""
    epsilon: float = option(0.2, TRAINING)
    """Clip range of the ratio: 1 - epsilon to 1 + epsilon."""
    ratio: Literal["geometric", "sequence"] | None = option(None, TRAINING)
    """geometric: exp of the mean log-ratio a token; sequence: exp of its sum. Left out: as `mode` says."""
    normalize: Literal["zscore", "none"] | None = option(None, WEIGHTS)
    """zscore: z-scores over all kept samples' rewards, standard deviation with ddof 0. Left out: as `mode` says."""
    reward_low: float = option(-2.0, WEIGHTS, least=-1e6)
    """Rewards are clipped to [reward_low, reward_high] before normalisation, in `code` mode only."""
    reward_high: float = option(4.0, WEIGHTS, most=1e6)
    """The upper limit of that range."""
    truncated: Literal["keep", "drop"] = option("keep", WEIGHTS)
    """Samples cut off by max_tokens: trained on like others, or dropped (they count in the means either way)."""
    max_log_ratio: float = option(20.0, TRAINING)
    """The log of the ratio is clamped to +-this before exp, and the clamped sequences are counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "epsilon", 0 < self.epsilon < 1, "must lie in (0, 1)")
        check(self, "reward_low", self.reward_low < self.reward_high, f"must be below reward_high={self.reward_high}")
        check(self, "max_log_ratio", 0 < self.max_log_ratio <= 80, "must lie in (0, 80]: float32 holds no exp of more")

    def resolved(self) -> dict[str, Any]:
        return {"ratio": self.ratio_kind, "normalize": self.normalization}

    @property
    def ratio_kind(self) -> Literal["geometric", "sequence"]:
        return self.ratio or ("geometric" if self.mode == "code" else "sequence")

    @property
    def normalization(self) -> Literal["zscore", "none"]:
        return self.normalize or ("zscore" if self.mode == "code" else "none")

    @property
    def reward_range(self) -> tuple[float, float] | None:
        return (self.reward_low, self.reward_high) if self.mode == "code" else None


class O1Pruner(Method):
    """The method makes rewards of a problem's samples, weights of all rewards, and a loss of packed sequences."""

    title = "O1-Pruner's length-harmonizing fine-tuning"
    paper = "arXiv 2501.12570, section 4"
    Params = O1PrunerParams

    def reward(self, group: Group, params: O1PrunerParams) -> Float[np.ndarray, " K"]:
        """Returns R of each sample of a problem (arXiv 2501.12570, section 4), the sample itself included in the means
        where the reference gave it.

        An empty completion counts as one token, in its own length and in the mean alike, so that R stays finite.
        """
        length_K = group.counted_K.astype(np.float64)
        correct_K = group.correct_K.astype(np.float64)
        shorter_K = group.mean_length / length_K - 1.0
        if params.length_term == "correct_only":
            shorter_K *= correct_K
        return shorter_K + params.lam * (correct_K - group.accuracy)

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: O1PrunerParams,
    ) -> Int[np.ndarray, "U 1"]:  # fmt: skip
        """Returns at most m samples, by lot; truncated ones only where `truncated` is `keep`."""
        allowed_K = usable_K & ~group.truncated_K if params.truncated == "drop" else usable_K
        return first_by_lot(allowed_K, lot_K, params.m)

    def bounded(self, reward_N: Float[np.ndarray, " N"], params: O1PrunerParams) -> Float[np.ndarray, " N"]:
        """Returns the rewards clipped to the reward range, as the authors' code does; in `paper` mode as they are."""
        return reward_N if params.reward_range is None else reward_N.clip(*params.reward_range)

    def advantage(self, scored: Scored, params: O1PrunerParams) -> Float[np.ndarray, " N"]:
        """Returns the weights: bounded rewards, z-scored over the kept samples (ddof 0) where `normalize` says so.

        Rewards that are all equal express no preference: their z-scores are 0.
        """
        bounded_N = self.bounded(scored.reward_N, params)
        kept_n = bounded_N[scored.kept_n]
        if params.normalization == "none" or kept_n.size == 0:
            return bounded_N
        std = kept_n.std()
        return (bounded_N - kept_n.mean()) / std if std > _STD_FLOOR else np.zeros_like(bounded_N)

    def objective(self, sequences: Sequences, params: O1PrunerParams) -> Any:
        """Returns the clipped losses of the sequences (arXiv 2501.12570, section 4), summed."""
        # Imported here because JAX is missing where samples are weighed and flags are read.
        from o1p_jax.methods.objectives import clipped_losses

        return clipped_losses(sequences, params.ratio_kind, params.max_log_ratio, params.epsilon)

    def card(self, params: O1PrunerParams, reward: str | None) -> str:
        """Returns the formulas with the values that were used; a `reward` takes the place of the reward's formula."""
        if reward is None:
            earned = (
                "L̄ is the mean length in tokens of a problem's solutions, and Ā the share of them that is correct. "
                "A solution y earns\n\n"
                f"    R(y) = L̄ / L(y) - 1 + {params.lam} · (A(y) - Ā)\n\n"
                "where A(y) is 1 if y is correct and 0 if not. "
            )
            if params.length_term == "correct_only":
                earned += "Of a wrong solution's reward, L̄ / L(y) - 1 was left out. "
        else:
            earned = f"The method's own reward was not used: the reward R(y) of a solution y is {reward}. "
        limits = params.reward_range
        clipped = f", their rewards clipped to [{limits[0]}, {limits[1]}]" if limits else ""
        scored = ", z-scored over all that were kept" if params.normalization == "zscore" else ""
        ratio = ", as the geometric mean over its tokens" if params.ratio_kind == "geometric" else ""
        return (
            f"The method is {self.title} ([arXiv 2501.12570](https://arxiv.org/abs/2501.12570)), in `{params.mode}` "
            f"mode. {earned}m = {params.m} solutions of each problem were kept at random{clipped}{scored}, and "
            "training lowered\n\n"
            f"    - min(r · R, clip(r, 1 - {params.epsilon}, 1 + {params.epsilon}) · R)\n\n"
            f"where r is the ratio of the solution's probabilities under the model and its base{ratio}."
        )
