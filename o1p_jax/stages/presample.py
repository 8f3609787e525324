"""The stage that samples K solutions of each problem from one model into a pool, or into several by one sampler.

A shard holds all samples of a few problems and is written whole or not at all; a run that was killed goes on with the
shards that are missing. The sampler is kept full: while the last samples of a shard are being drawn, requests of the
next shards, of whatever pool, come in, and a shard is claimed only when there is room for its first request. Any number
of processes, on any hosts that see the pools, share the shards out (`runtime.claims`); what a lost process has not
finished, the others do. `python -m o1p_jax.stages.presample JOB.json` does one job in a process of its own, as vLLM
needs it: vLLM's memory comes back when the process ends, and vLLM may live in another environment. The embedded sampler
has its own on a CPU (`stages.where`).
"""

import bisect
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from o1p_jax.config.text import from_dict
from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.claims import Share
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.progress import Rate, track
from o1p_jax.runtime.traces import traces_in
from o1p_jax.sampling import Sampler, SamplingParams
from o1p_jax.sampling import make_sampler as default_sampler
from o1p_jax.stages import remedies

_PROBES = 4
"""The number of prompts that every server answers first, to show what it serves."""


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """A job says which model fills which pools by which sampler; the pools themselves say how samples are drawn."""

    title: str
    """The name of what is sampled, for people: train, or a model's name."""
    pools: tuple[str, ...]
    """The pools' folders. Their samples are drawn alike, but for the seed and the number of a problem's."""
    folder: str
    """The folder of the model's files."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """The sampler and its settings."""
    mesh: str
    dtype: str
    """The mesh of the embedded sampler, and the type that it, and what a server is compared with, are computed in."""
    others: tuple[str, ...] = ()
    """Folders of models that a server might serve by mistake."""


def presample(job: SampleJob, make_sampler: Callable[..., Sampler] = default_sampler) -> None:
    """Samples the solutions that the pools still lack, and waits for those that other processes are sampling.

    A sample's seed depends on (seed, problem, sample index) alone. Where the sampler can't draw each sample by its own
    seed (vLLM on a TPU), one shard is sampled at a time, all of it by the seed of its first sample, and the seed is
    null in its rows. Wherever the function is stopped, the finished shards stay. Raises OutOfMemory where a device has
    too little for the sampler.
    """
    wanted = _Wanted(list(map(Pool, job.pools)))
    missing = wanted.missing_shards()
    if not missing:
        return
    total = sum(map(wanted.samples_in, range(wanted.shards)))
    with (
        memory_errors(f"presample {job.title}", remedies.of_sampling(job.sampling, job.mesh)),
        track(
            f"presample {job.title}",
            total=total,
            unit="samples",
            done=total - sum(map(wanted.samples_in, missing)),
        ) as bar,
        Share(wanted, lambda shard: bar.advance(wanted.samples_in(shard))) as share,
    ):
        shard = share.wait()
        if shard is None:  # others have made all that was missing, and no sampler is needed
            return
        with closing(_made(job, wanted, make_sampler)) as sampler:
            most = job.sampling.shards_in_flight if sampler.seeds_each else 1
            flight = _Flight(wanted, share, most, Prompter(Path(job.folder)).decode)
            rate = Rate()
            while shard is not None:
                flight.begin(shard)
                while flight.left:
                    while sampler.room > 0 and (request := flight.next_request()) is not None:
                        sampler.add(*request)
                    ended = sampler.step()
                    for number, completion in ended:
                        flight.end(number, completion, seeded=sampler.seeds_each)
                    rate.mark(sampler.tokens)
                    bar.advance(len(ended), f"{flight.in_sampler} in flight, {rate.per_second() or 0:,.0f} tokens/s")
                shard = share.wait()


class _OfPool:
    """The samples that one pool is to hold."""

    def __init__(self, pool: Pool):
        draw = pool.facts["draw"]
        self.how = SamplingParams.from_json(draw)
        self.samples = pool.samples
        self.prompts = pool.problems.read(["prompt_ids", "problem_id"])
        self._seed, self._k = draw["seed"], draw["samples_per_problem"]
        self._logprobs = draw.get("logprobs", False)
        self._problems = pool.facts["problems_per_shard"]

    @property
    def per_shard(self) -> int:
        """The number of samples of every shard but the last, which may have fewer."""
        return self._k * self._problems

    def samples_in(self, shard: int) -> int:
        """Returns the number of samples of a shard."""
        return min(self.per_shard, self.prompts.num_rows * self._k - shard * self.per_shard)

    def of_shard(self, shard: int) -> tuple[list[dict[str, Any]], list[Request]]:
        """Returns a shard's rows, which lack what is still to be sampled, and the requests for it."""
        rows, requests = [], []
        for problem in self.prompts.slice(shard * self._problems, self._problems).to_pylist():
            for k in range(self._k):
                seed = sample_seed(self._seed, problem["problem_id"], k)
                rows.append({"problem_id": problem["problem_id"], "sample_idx": k, "seed": seed})
                # One sample of a problem tells enough of how sampler and trainer agree, and costs a K-th.
                requests.append(Request(tuple(problem["prompt_ids"]), seed, self._logprobs and k == 0))
        return rows, requests


class _Wanted:
    """The samples that the pools are to hold; the shards of all pools are numbered through, as those of one folder."""

    def __init__(self, pools: Sequence[Pool]):
        self._pools = list(map(_OfPool, pools))
        self._first = [0, *itertools.accumulate(of.samples.shards for of in self._pools)]
        self.path = Path(os.path.commonpath([of.samples.path for of in self._pools]))
        self.how = self._pools[0].how
        assert all(of.how == self.how for of in self._pools), "a sampler draws in one way"
        self.per_shard = max(of.per_shard for of in self._pools)

    @property
    def shards(self) -> int:
        """The number of all shards."""
        return self._first[-1]

    def prompts(self) -> list[tuple[int, ...]]:
        """Returns the token ids of all problems' prompts."""
        return [tuple(ids) for of in self._pools for ids in of.prompts["prompt_ids"].to_pylist()]

    def missing_shards(self) -> list[int]:
        """Returns the numbers of the shards that are not there yet."""
        of_pools = zip(self._first, self._pools, strict=False)
        return [first + shard for first, of in of_pools for shard in of.samples.missing_shards()]

    def shard_path(self, shard: int) -> Path:
        """Returns the path of a shard's file."""
        of, own = self._at(shard)
        return of.samples.shard_path(own)

    def samples_in(self, shard: int) -> int:
        """Returns the number of samples of a shard."""
        of, own = self._at(shard)
        return of.samples_in(own)

    def of_shard(self, shard: int) -> tuple[list[dict[str, Any]], list[Request]]:
        """Returns a shard's rows, which lack what is still to be sampled, and the requests for it."""
        of, own = self._at(shard)
        return of.of_shard(own)

    def write_shard(self, shard: int, rows: list[dict[str, Any]]) -> None:
        """Writes a shard whose rows have their samples."""
        of, own = self._at(shard)
        of.samples.write_shard(own, rows)

    def _at(self, shard: int) -> tuple[_OfPool, int]:
        """Returns the shard's pool, and its number there."""
        number = bisect.bisect_right(self._first, shard) - 1
        return self._pools[number], shard - self._first[number]


class _Flight:
    """The shards that are being sampled, at most `most` of them; each is written when its last sample has ended."""

    def __init__(self, wanted: _Wanted, share: Share, most: int, decode: Callable[[Sequence[int]], str]):
        self._wanted, self._share, self._most, self._decode = wanted, share, most, decode
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._left: dict[int, int] = {}
        self._waiting: deque[tuple[int, Request]] = deque()

    @property
    def left(self) -> int:
        """The number of samples that have not ended."""
        return sum(self._left.values())

    @property
    def in_sampler(self) -> int:
        """The number of samples that the sampler has been given and that have not ended."""
        return self.left - len(self._waiting)

    def begin(self, shard: int) -> None:
        """Takes a claimed shard in."""
        self._rows[shard], requests = self._wanted.of_shard(shard)
        self._left[shard] = len(requests)
        self._waiting.extend(enumerate(requests, shard * self._wanted.per_shard))

    def next_request(self) -> tuple[int, Request] | None:
        """Returns the next sample's number and request, if there is one; another shard is claimed only for it."""
        if not self._waiting and len(self._rows) < self._most and (shard := self._share.claim()) is not None:
            self.begin(shard)
        return self._waiting.popleft() if self._waiting else None

    def end(self, number: int, completion: Completion, *, seeded: bool) -> None:
        """Takes a sample's completion in, and writes the shard if that was its last."""
        shard, row = divmod(number, self._wanted.per_shard)
        self._rows[shard][row] |= {
            "completion": self._decode(completion.token_ids),
            "completion_ids": list(completion.token_ids),
            "finish_reason": completion.finish_reason,
            "logprobs": completion.logprobs,
        }
        if not seeded:
            self._rows[shard][row]["seed"] = None
        self._left[shard] -= 1
        if not self._left[shard]:
            del self._left[shard]
            self._wanted.write_shard(shard, self._rows.pop(shard))
            self._share.finish(shard)


def _made(job: SampleJob, wanted: _Wanted, make_sampler: Callable[..., Sampler]) -> Sampler:
    prompts = wanted.prompts()
    return make_sampler(
        job.sampling,
        Path(job.folder),
        wanted.how,
        probes=prompts[:_PROBES],
        others=list(map(Path, job.others)),
        mesh=job.mesh,
        dtype=job.dtype,
        max_length=max(map(len, prompts)) + wanted.how.max_tokens,
    )


def sample_seed(seed: int, problem_id: str, sample: int) -> int:
    """Returns the seed of one sample: 31 bits, which every sampler takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()[:4]) >> 1


def _in_a_process(values: dict[str, Any]) -> None:
    job = from_dict(SampleJob, values)
    if job.sampling.sampler == "jax":
        from o1p_jax.devices.mesh import set_up_devices  # an environment of vLLM's may have no JAX

        set_up_devices(job.mesh)
    with traces_in(Path(job.pools[0])):
        presample(job)


if __name__ == "__main__":
    child_main(_in_a_process)
