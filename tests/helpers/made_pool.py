"""Pools made up for tests, from rows that hold all of a solution: problem, sample and grade."""

from pathlib import Path

from o1p_jax.config.tree import GradingConfig
from o1p_jax.data.pool import PROBLEMS, SAMPLES, Pool
from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime.files import write_json_with_sum
from o1p_jax.stages import identity


def sample(problem: str, k: int, length: int, right: bool, **values) -> dict:
    """One solution of a problem whose answer is 7."""
    answer = r"\boxed{7}" if right else r"\boxed{8}"
    return {
        "problem_id": problem,
        "source": "s",
        "split": "t",
        "level": "1",
        "problem": problem,
        "answer": "7",
        "prompt_ids": [1],
        "completion": answer,
        "completion_ids": [5] * length,
        "sample_idx": k,
        "seed": k,
        "finish_reason": "stop",
        "grade": "correct" if right else "wrong",
    } | values


def only(row: dict, schema) -> dict:
    return {name: row.get(name) for name in schema.names}


def write_pool(path: Path, *shards: list[dict]) -> tuple[Pool, ShardedTable]:
    """A pool with these shards of samples, and its grades; shards without a grade stay ungraded."""
    made_by = {"seed": 0}
    problems = {row["problem_id"]: only(row, PROBLEMS) for rows in shards for row in rows}
    ShardedTable.create(path / "problems", PROBLEMS, made_by, 1).write_shard(0, list(problems.values()))
    samples = ShardedTable.create(path / "samples", SAMPLES, made_by, len(shards))
    for i, rows in enumerate(shards):
        samples.write_shard(i, [only(row, SAMPLES) for row in rows])
    facts = {"format": 2, "origin": "sampled", "problems_per_shard": 1, "identity": made_by}
    write_json_with_sum(path / "pool.json", facts)
    pool = Pool(path)
    grades = pool.grades(identity.of_grades(GradingConfig()))
    for i, rows in enumerate(shards):
        if all(row.get("grade") for row in rows):
            grades.write_shard(i, [only(row, grades.schema) for row in rows])
    return pool, grades
