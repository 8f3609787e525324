"""The stage that samples K solutions of each problem from one model into a pool.

A shard holds all samples of a few problems and is written whole or not at all; a run that was killed goes on with the
shards that are missing. Any number of processes, on any hosts that see the pool, share the shards out
(`runtime.claims`); what a lost process has not finished, the others do. `python -m o1p_jax.stages.presample JOB.json`
does one job in a process of its own, as vLLM needs it: vLLM's memory comes back when the process ends, and vLLM may
live in another environment.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from o1p_jax.config.text import from_dict
from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Request
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.claims import shards_to_make
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.progress import track
from o1p_jax.runtime.traces import traces_in
from o1p_jax.sampling import Sampler, SamplingParams
from o1p_jax.sampling import make_sampler as default_sampler
from o1p_jax.stages import remedies


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """A job says which model fills which pool by which sampler; the pool itself says how its samples are drawn."""

    title: str
    """The name of what is sampled, for people: train, or a model's name."""
    pool: str
    """The pool's folder."""
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
    """Samples the solutions that the pool still lacks, and waits for those that other processes are sampling.

    A sample's seed depends on (seed, problem, sample index) alone. Where the sampler can't draw each sample by its own
    seed (vLLM on a TPU), all of a shard are drawn by the seed of its first one, and the seed is null in their rows.
    Wherever the function is stopped, the finished shards stay. Raises OutOfMemory where a device has too little for
    the sampler.
    """
    pool = Pool(job.pool)
    missing = pool.samples.missing_shards()
    if not missing:
        return
    draw = pool.facts["draw"]
    samples, seed = draw["samples_per_problem"], draw["seed"]
    params = SamplingParams.from_json(draw)
    prompts = pool.problems.read(["prompt_ids", "problem_id"])
    longest = max(map(len, prompts["prompt_ids"].to_pylist()))
    size = pool.facts["problems_per_shard"]

    def problems_in(shard: int) -> int:
        return min(size, prompts.num_rows - shard * size)

    todo = samples * sum(map(problems_in, missing))
    total = samples * prompts.num_rows
    with (
        memory_errors(f"presample {job.title}", remedies.of_sampling(job.sampling, job.mesh)),
        ExitStack() as stack,
        track(f"presample {job.title}", total=total, unit="samples", done=total - todo) as bar,
    ):
        sampler = decode = None

        def made_by_another(shard: int) -> None:
            bar.advance(samples * problems_in(shard))

        for shard in stack.enter_context(closing(shards_to_make(pool.samples, made_by_another))):
            if sampler is None:  # where others make all that is missing, none is needed
                sampler = stack.enter_context(closing(_made(job, longest + params.max_tokens, make_sampler)))
                decode = Prompter(Path(job.folder)).decode
            assert decode is not None
            rows: list[dict[str, Any]] = []
            requests = []
            for problem in prompts.slice(shard * size, size).to_pylist():
                for k in range(samples):
                    row = {"problem_id": problem["problem_id"], "sample_idx": k}
                    rows.append(row | {"seed": sample_seed(seed, problem["problem_id"], k)})
                    requests.append(Request(tuple(problem["prompt_ids"]), rows[-1]["seed"]))
            for row, completion in zip(rows, sampler.sample(requests, params, bar.advance), strict=True):
                row |= {} if sampler.seeds_each else {"seed": None}
                row |= {
                    "completion": decode(completion.token_ids),
                    "completion_ids": list(completion.token_ids),
                    "finish_reason": completion.finish_reason,
                }
            pool.samples.write_shard(shard, rows)


def _made(job: SampleJob, max_length: int, make_sampler: Callable[..., Sampler]) -> Sampler:
    return make_sampler(
        job.sampling,
        Path(job.folder),
        others=list(map(Path, job.others)),
        mesh=job.mesh,
        dtype=job.dtype,
        max_length=max_length,
    )


def sample_seed(seed: int, problem_id: str, sample: int) -> int:
    """Returns the seed of one sample: 31 bits, which every sampler takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()[:4]) >> 1


def _in_a_process(values: dict[str, Any]) -> None:
    job = from_dict(SampleJob, values)
    with traces_in(Path(job.pool)):
        presample(job)


if __name__ == "__main__":
    child_main(_in_a_process)
