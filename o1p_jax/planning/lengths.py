"""The lengths that a plan reckons with: those of a pool's solutions, or drawn ones of a mean and a cap."""

import math
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.runtime.errors import BadInput

_SPREAD = 0.7
"""Standard deviation of the lengths' logarithms, as it is among solutions of problems of mixed levels."""
_PROMPT = 128
"""Tokens of a prompt that was not looked at."""


def planned_lengths(cfg: RunConfig, count: int, solution_tokens: int) -> list[int]:
    """Returns the lengths of about `count` samples, prompts included; those that are longer than a row are left out.

    They are those of the solutions in the pool that `cfg.pool` names, taken again where they are fewer. Where it names
    none, or an empty one, they are lognormal, with the mean `solution_tokens` and cut off at sampling.max_tokens.
    """
    found = pool_lengths(Pool(cfg.pool)) if cfg.pool is not None and Pool.lies_in(Path(cfg.pool)) else []
    if not found:
        prompt = min(_PROMPT, cfg.problems.max_prompt_tokens)
        found = [prompt + n for n in drawn(solution_tokens, cfg.sampling.max_tokens, count)]
    fitting = [length for length in found if length <= cfg.batch.row_length]
    if not fitting:
        raise BadInput(f"batch.row_length={cfg.batch.row_length}: all samples would be longer; raise it")
    return (fitting * -(-count // len(found)))[:count]


def drawn(mean: int, cap: int, count: int) -> list[int]:
    """Returns lognormal lengths that are cut off at `cap` and have this mean all the same; the same ones each time.

    Raises BadInput for a mean above the cap.
    """
    if mean > cap:
        raise BadInput(f"--solution_tokens={mean}: must be at most sampling.max_tokens={cap}; lower it, or raise that")
    normal = np.random.default_rng(0).normal(0, _SPREAD, count)
    low, high = 0.0, 3 * math.log(cap) + 3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(middle + normal).clip(1, cap).mean() < mean else (low, middle)
    return np.rint(np.exp(high + normal).clip(1, cap)).astype(int).tolist()


def pool_lengths(pool: Pool) -> list[int]:
    """Returns the lengths of the pool's samples with their prompts, as far as the pool is filled."""
    problems = pool.problems.read(["problem_id", "prompt_ids"])
    prompts = dict(
        zip(problems["problem_id"].to_pylist(), pc.list_value_length(problems["prompt_ids"]).to_pylist(), strict=True)
    )
    missing = set(pool.samples.missing_shards())
    found = []
    for shard in (shard for shard in range(pool.samples.shards) if shard not in missing):
        table = pool.samples.read_shard(shard, ["problem_id", "completion_ids"])
        completions = pc.list_value_length(table["completion_ids"]).to_pylist()
        found += [prompts[p] + n for p, n in zip(table["problem_id"].to_pylist(), completions, strict=True)]
    return found
