"""K solutions a problem from one model, into a folder of Parquet shards.

A shard holds all samples of a few problems and is written whole or not at all; a run that was killed goes on with the
shards that are missing. Any number of processes, on any hosts that see the folder, share them out (`o1p_jax.claims`);
what one that is lost has not finished, the others do. `python -m o1p_jax.presample JOB.json` does one job in a process
of its own, as vLLM needs it: its memory comes back when the process ends, and it may live in another environment.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from o1p_jax.config.text import fingerprint, from_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Problem, Request
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.claims import shards_to_make
from o1p_jax.runtime.files import sha256_file
from o1p_jax.runtime.progress import track
from o1p_jax.runtime.signals import preemptible
from o1p_jax.sampling import Sampler, SamplingParams
from o1p_jax.sampling import make_sampler as default_sampler


@dataclass(frozen=True)
class RolloutJob:
    """Which model answers which problems."""

    config: RunConfig
    part: Literal["train", "test"]
    """train: problems.train with `sampling`'s parameters; test: problems.test with `evaluation`'s."""
    model: str
    """Hugging Face folder, hub name, or `embedded`."""
    out: str
    """The folder of shards."""
    folder: str | None = None
    """Where the model's files lie, when that is known already."""


def presample(job: RolloutJob, make_sampler: Callable[..., Sampler] = default_sampler) -> Path:
    """Samples what `job.out` still lacks, and waits for what other processes are sampling; returns its path.

    A sample's seed depends on (config.seed, problem, sample index) alone. Raises BadInput before anything is written
    when problems, prompts or model don't fit, or `job.out` was made with other parameters; Preempted on SIGTERM or
    SIGINT, the finished shards staying.
    """
    cfg, out = job.config, Path(job.out)
    sampling = cfg.sampling if job.part == "train" else cfg.evaluation
    spec, limit = (
        (cfg.problems.train, cfg.problems.limit_train)
        if job.part == "train"
        else (cfg.problems.test, cfg.problems.limit_test)
    )
    problems = load_problems(spec, cfg.problems, limit)
    model = _resolve(job)
    prompter = Prompter(model, cfg.problems)
    prompts = {problem.problem_id: prompter.prompt_ids(problem) for problem in problems}

    size = cfg.sampling.problems_per_shard
    shards = [problems[i : i + size] for i in range(0, len(problems), size)]
    samples = sampling.samples_per_problem
    params = SamplingParams.of(sampling, prompter.eos_ids)
    folder = RolloutFolder.create(
        out,
        {
            "model": job.model,
            "revision": cfg.revision,
            "model_sha256": _digest(model),
            "template_sha256": prompter.template_hash,
            "problems_sha256": fingerprint([p.problem_id for p in problems]),
            "sampler": cfg.sampling.sampler,
            "samples_per_problem": samples,
            "problems_per_shard": size,
            "seed": cfg.seed,
            **asdict(params),
        },
        len(shards),
    )
    missing = folder.missing_shards()
    if not missing:
        return out
    todo = samples * sum(len(shards[i]) for i in missing)
    total = samples * len(problems)
    longest = max(len(ids) for ids in prompts.values())
    with (
        preemptible(),
        ExitStack() as stack,
        track(f"presample {job.part}", total=total, unit="samples", done=total - todo) as bar,
    ):
        sampler = None

        def made_by_another(shard: int) -> None:
            bar.advance(samples * len(shards[shard]))

        for shard in stack.enter_context(closing(shards_to_make(folder, made_by_another))):
            if sampler is None:  # where others make all that is missing, none is needed
                sampler = stack.enter_context(closing(make_sampler(cfg.sampling.sampler, model, cfg, longest)))
            rows = [
                _row(problem, prompts[problem.problem_id], k, cfg.seed)
                for problem in shards[shard]
                for k in range(samples)
            ]
            requests = [Request(tuple(row["prompt_ids"]), row["seed"]) for row in rows]
            for row, completion in zip(rows, sampler.sample(requests, params, bar.advance), strict=True):
                row |= {
                    "completion": prompter.decode(completion.token_ids),
                    "completion_ids": list(completion.token_ids),
                    "finish_reason": completion.finish_reason,
                }
            folder.write_shard(shard, rows)
    return out


def sample_seed(seed: int, problem_id: str, sample: int) -> int:
    """The seed of one sample: 31 bits, which every sampler takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()[:4]) >> 1


def _row(problem: Problem, prompt: tuple[int, ...], sample: int, seed: int) -> dict[str, Any]:
    return asdict(problem) | {
        "prompt_ids": list(prompt),
        "sample_idx": sample,
        "seed": sample_seed(seed, problem.problem_id, sample),
    }


def _resolve(job: RolloutJob) -> Path:
    known = job.folder or job.model
    if Path(known).is_dir():
        return Path(known)
    from o1p_jax.models.hf.hub import resolve_model

    return resolve_model(job.model, job.config.revision)


def _digest(model: Path) -> str:
    """SHA-256 over the names and contents of the model's configuration and weights."""
    files = sorted([*model.glob("*.safetensors"), *model.glob("config.json")])
    return fingerprint({file.name: sha256_file(file) for file in files})


if __name__ == "__main__":
    child_main(lambda values: presample(RolloutJob(**values | {"config": from_dict(RunConfig, values["config"])})))
