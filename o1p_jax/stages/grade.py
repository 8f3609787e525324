"""The stage that grades a pool's samples: it finds each one's final answer and compares it with the gold answer."""

from contextlib import closing

from o1p_jax.config.tree import GradingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.shards import ShardedTable
from o1p_jax.grading.grader import Grader
from o1p_jax.grading.thoughts import THOUGHT
from o1p_jax.runtime.claims import shards_to_make
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.progress import track
from o1p_jax.stages import identity, remedies


def grade(pool: Pool, grading: GradingConfig) -> ShardedTable:
    """Grades the pool's samples that have no grade yet, and returns the grades by the grader that `grading` names.

    Several processes share the shards out, as `stages.presample` does.
    """
    grades = pool.grades(identity.of_grades(grading))
    missing = grades.missing_shards()
    if not missing:
        return grades
    done = grades.shards - len(missing)
    problems = pool.problems.read(["problem_id", "answer", "inside_thought"])
    columns = ("problem_id", "sample_idx", "completion", "answer", "inside_thought")
    with (
        memory_errors("grade", remedies.of_host("--sampling.problems_per_shard (in a new pool)")),
        Grader(
            timeout_s=grading.timeout_s,
            own=grading.grader,
            unclosed_thought=grading.unclosed_thought,
            allow_unfinished=grading.allow_unfinished,
        ) as grader,
        track("grade", total=grades.shards, unit="shards", done=done) as bar,
        closing(shards_to_make(grades, lambda _: bar.advance())) as todo,
    ):
        for shard in todo:
            table = pool.read_shard(shard, columns, problems=problems)
            texts = zip(table["completion"].to_pylist(), table["inside_thought"].to_pylist(), strict=True)
            whole = [THOUGHT + text if inside_thought else text for text, inside_thought in texts]
            verdicts = grader.grade_many(list(zip(whole, table["answer"].to_pylist(), strict=True)))
            keys = zip(table["problem_id"].to_pylist(), table["sample_idx"].to_pylist(), verdicts, strict=True)
            grades.write_shard(
                shard, [{"problem_id": p, "sample_idx": k, "pred": v.pred, "grade": v.status} for p, k, v in keys]
            )
            bar.advance()
    return grades
