"""The records that travel between the stages. The module imports no library beyond the standard one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with its gold answer."""

    problem_id: str
    """`problem_id(problem, answer)`: the same problem has the same id in any file and at any position."""
    source: str
    """The file or data set that the problem came from."""
    split: str
    level: str
    problem: str
    answer: str
    chat: tuple[dict[str, str], ...] = ()
    """The prompt's turns (role, content) where the file holds a chat; without one, `problem` is the user's turn."""


def problem_id(problem: str, answer: str) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the problem's text and gold answer."""
    return hashlib.sha256(f"{problem}\0{answer}".encode()).hexdigest()[:16]


class Request(NamedTuple):
    """One solution to be sampled."""

    prompt_ids: tuple[int, ...]
    seed: int
    """The seed of this sample alone: the solution does not depend on what is sampled beside it."""
    logprobs: bool = False
    """Whether the sampler is to tell its log-probability of each token, if it can."""


class Completion(NamedTuple):
    """One sampled solution."""

    token_ids: tuple[int, ...]
    """The solution's token ids without the prompt's, with the end-of-sequence token where the model gave one."""
    finish_reason: str
    """'stop': the model ended the solution; 'length': max_tokens did."""
    logprobs: tuple[float, ...] | None = None
    """The sampler's log-probability of each token in nats, at temperature 1 and over all words; None where not told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSample:
    """One kept solution, as the trainer needs it."""

    problem_id: str
    sample_idx: int
    prompt_ids: "np.ndarray | Sequence[int]"
    """Token ids; of samples that a training set reads, int32 arrays: a tuple takes nine times as much memory."""
    completion_ids: "np.ndarray | Sequence[int]"
    weight: float
    """The advantage: the reward after clipping and normalisation."""
