"""A method leads from the K graded samples of each problem to weights, and from weights to an objective.

Shapes: K samples of a problem, N samples of all problems, U units of S samples; R rows, L tokens a row, M sequences a
row. All of a method but its objective is NumPy: where samples are weighed and flags are read, JAX may be missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from o1p_jax.runtime.fields import TRAINING, WEIGHTS, check, check_numbers, option
from o1p_jax.runtime.user_code import split

P = TypeVar("P", bound="Params")


class Group(NamedTuple):
    """The samples of one problem whose grade is decided: what a reward may depend on. NumPy arrays of length K."""

    length_K: np.ndarray
    """Integers: tokens of each completion as sampled, with its end-of-sequence token; 0 for an empty completion."""
    correct_K: np.ndarray
    """Booleans: the sample was graded correct."""
    truncated_K: np.ndarray
    """Booleans: max_tokens cut the sample off."""
    reference: tuple[float, float] | None = None
    """Lbar and Abar of the reference's samples of the problem; None: the reference gave these samples."""

    @property
    def counted_K(self) -> Int[np.ndarray, " K"]:
        """The lengths that means and ratios are made of: an empty completion counts as one token, its unwritten end."""
        return np.maximum(self.length_K, 1)

    @property
    def mean_length(self) -> float:
        """Lbar, the mean length of the reference's samples in tokens."""
        return float(self.counted_K.mean()) if self.reference is None else self.reference[0]

    @property
    def accuracy(self) -> float:
        """Abar, the share of the reference's samples that is correct."""
        return float(self.correct_K.mean()) if self.reference is None else self.reference[1]


def first_by_lot(allowed_K: Bool[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"], m: int) -> Int[np.ndarray, "U 1"]:
    """Returns the first m of the allowed samples in the order of their lots, each as a unit of its own."""
    shuffled_K = np.argsort(lot_K)
    return shuffled_K[allowed_K[shuffled_K]][:m, None]


class Scored(NamedTuple):
    """The samples of all problems whose grade is decided, with their rewards, by problem and number. NumPy arrays."""

    reward_N: Float[np.ndarray, " N"]
    problem_N: Int[np.ndarray, " N"]
    """The number of each sample's problem, from 0, ascending."""
    group_N: Group
    """Lengths, correctness and truncation of the samples, problem after problem."""
    units_US: Int[np.ndarray, "U S"]
    """The units that are trained on, as numbers of samples."""

    @property
    def kept_n(self) -> Int[np.ndarray, " n"]:
        """The numbers of the samples that are trained on, ascending."""
        return np.unique(self.units_US)

    @property
    def taught_N(self) -> Bool[np.ndarray, " N"]:
        """Booleans: the sample's problem has a unit."""
        return np.isin(self.problem_N, self.problem_N[self.kept_n])

    def sum_N(self, value_N: np.ndarray) -> Float[np.ndarray, " N"]:
        """Returns, for each sample, the sum of the values over its problem's samples."""
        return np.bincount(self.problem_N, value_N)[self.problem_N].astype(np.float64)  # none of none are integers


class Sequences(NamedTuple):
    """A microbatch as an objective sees it: jax arrays of R packed rows. A position stands for the token that
    it predicts.
    """

    logprobs_RL: Any
    """float32 log-probability (nats) of each token under the model in training; anything where mask is False."""
    ref_logprobs_RL: Any
    """float32 log-probability (nats) of each token under the reference model; 0 where mask is False."""
    mask_RL: Any
    """bool: the token belongs to a completion."""
    segments_RL: Any
    """int32: 1..M for the row's sequences, 0 for padding."""
    weights_RM: Any
    """float32 weight of sequence m + 1."""
    present_RM: Any
    """bool: the row has a sequence m + 1."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """The parameters that every method has; a method's own class adds more. Each one is a flag, `--method.NAME`."""

    FLAG: ClassVar[str] = "method."
    UNIT: ClassVar[int] = 1
    """S: the number of samples that must share a row, side by side; 2 for a method that trains on pairs."""

    BY_MEANS: ClassVar[bool] = False
    """Whether the reward holds a sample against `Group.mean_length` and `Group.accuracy` alone, which may be those of
    another model's samples; most rewards compare the samples with one another."""

    name: str = option("", WEIGHTS, TRAINING, init=False)
    """The name of the method that the other parameters are for; --method=NAME is short for this flag."""
    reward: str | None = option(None, WEIGHTS)
    """FILE.py:NAME, a function (group, params) -> K rewards that takes the place of the method's own reward."""
    m: int = option(2, WEIGHTS, least=1)
    """m of the paper: how many of a problem's K samples are trained on."""
    k: int | None = option(None, WEIGHTS, least=1)
    """Only the first so many of a problem's samples count, as if no more had been drawn; left out: all K of them."""

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self, "k", self.k is None or self.m <= self.k, f"must be at least m={self.m}")
        if self.reward is not None:
            split(f"{self.FLAG}reward", self.reward)

    @property
    def fewest_samples(self) -> int:
        """The least K from which a reward can differ from sample to sample: 2 where samples are compared."""
        return 2 if self.reward is None else 1

    def resolved(self) -> dict[str, Any]:
        """Returns the values in force of fields that may be left out; the model card shows these values."""
        return {}


class Method:
    """The interface of a method. A method is one file with its own `Params` and `Method`, and one line in `METHODS`.

    Methods hold no state: all that a run may choose is in the parameters.
    """

    title: ClassVar[str]
    """What the method is called in print."""
    paper: ClassVar[str]
    """Where the method is described: "arXiv 2501.12570, section 4"."""
    Params: ClassVar[type[Params]]

    def reward(self, group: Group, params: Any) -> Float[np.ndarray, " K"]:
        """Returns the reward of each of a problem's samples, float64."""
        raise NotImplementedError

    def rewards(self, groups: Sequence[Group], params: Any) -> list[Float[np.ndarray, " K"]]:
        """Returns the rewards of all problems' samples; a reward that depends on the whole pool is made here."""
        return [self.reward(group, params) for group in groups]

    def choose(
        self, group: Group, reward_K: Float[np.ndarray, " K"], lot_K: Int[np.ndarray, " K"],
        usable_K: Bool[np.ndarray, " K"], params: Any,
    ) -> Int[np.ndarray, "U S"]:  # fmt: skip
        """Returns which of a problem's samples are trained on, as U units of S = `params.UNIT` usable samples.

        `lot_K` is each sample's place in the problem's seeded shuffle, 0 to K - 1. `usable_K` says which samples have a
        token, and room in a row. No sample may be twice in a unit. Without a unit the problem teaches the method
        nothing, and is left out.
        """
        raise NotImplementedError

    def bounded(self, reward_N: Float[np.ndarray, " N"], params: Any) -> Float[np.ndarray, " N"]:
        """Returns the rewards within the method's limits, which are set before normalisation; by default, no limits."""
        return reward_N

    def advantage(self, scored: Scored, params: Any) -> Float[np.ndarray, " N"]:
        """Returns the weights of the samples, float64; those of samples that are not trained on don't count."""
        raise NotImplementedError

    def objective(self, sequences: Sequences, params: Any) -> Any:
        """Returns what training lowers, as `objectives.LossSums` over the microbatch: sums, never means.

        The training step differentiates the sum `loss` and divides once, by the step's number of sequences.
        """
        raise NotImplementedError

    def card(self, params: Any, reward: str | None) -> str:
        """Returns the method in words and formulas, as Markdown for the model card.

        `reward` describes a user's reward that took the place of the method's own; None: the method's own was used.
        """
        raise NotImplementedError
