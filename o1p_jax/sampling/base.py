"""What a sampler is, and the parameters that it samples with. The module imports no library beyond the standard one."""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from o1p_jax.data.records import Completion, Request


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn; the same for all that a sampler draws."""

    temperature: float = 1.0
    """Divisor of the logits; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Only the smallest set of likeliest tokens with at least this much probability is drawn from; 1 turns this off."""
    top_k: int = 0
    """Only this many likeliest tokens are drawn from; 0 turns this off.

    Applied before `top_p`, as in vLLM and transformers.
    """
    max_tokens: int
    """Length of the longest completion in tokens, the end-of-sequence token included."""
    stop_ids: tuple[int, ...]
    """Tokens that end a completion (and are its last token)."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SamplingParams":
        """The parameters among the JSON `values` that a pool was made with."""
        chosen = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        return cls(**chosen | {"stop_ids": tuple(chosen["stop_ids"])})


class Answer(NamedTuple):
    """A greedy completion that a server gave to show what it serves."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """The log-probability of each token, in nats, by the server; None where it tells none."""


@runtime_checkable
class Sampler(Protocol):
    """A sampler draws completions from one model, all in one way; requests come in while others are being drawn."""

    name: str
    """'jax', 'vllm' or 'server'."""
    version: str
    """Library and version, for the rollouts' metadata."""
    seeds_each: bool
    """Whether each sample is drawn by its request's seed; if not, what begins with the first seeds all after it."""

    @property
    def tokens(self) -> int:
        """How many tokens the sampler has drawn so far; a server tells of them when a completion ends."""

    @property
    def room(self) -> int:
        """How many more requests the sampler can make use of now."""

    def add(self, key: int, request: Request) -> None:
        """Hands a request in, under a key by which its completion comes back."""

    def step(self) -> list[tuple[int, Completion]]:
        """Draws on for a moment; returns the keys and completions of the requests that have ended, if any.

        Raises SamplerGone when the engine or server fails for good.
        """

    def close(self) -> None:
        """Gives memory and connections back; the sampler is of no more use."""


def sample(sampler: Sampler, requests: Sequence[Request]) -> list[Completion]:
    """Returns one completion a request, in the requests' order, from a sampler that has nothing else to do."""
    waiting, done = deque(enumerate(requests)), dict[int, Completion]()
    while len(done) < len(requests):
        while waiting and sampler.room > 0:
            sampler.add(*waiting.popleft())
        done |= dict(sampler.step())
    return [done[i] for i in range(len(requests))]
