"""The stage that grades samples."""

from contextlib import closing
from pathlib import Path

from o1p_jax.config.tree import GradingConfig
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.grading.grader import Grader, source_digest
from o1p_jax.runtime.claims import shards_to_make
from o1p_jax.runtime.progress import track
from o1p_jax.stages.weigh import _with


def grade_rollouts(src: Path, dst: Path, grading: GradingConfig) -> Path:
    """Copies the rollouts of `src` to `dst` with `pred` and `grade` filled in; returns `dst`.

    Several processes share the shards out, as in presampling.
    """
    source = RolloutFolder(src)
    facts = {"stage": "graded", "grading.timeout_s": grading.timeout_s, "grader_source": source_digest(grading.grader)}
    folder = RolloutFolder.create(dst, source.metadata | facts, source.shards)
    missing = folder.missing_shards()
    if not missing:
        return dst
    done = source.shards - len(missing)
    with (
        Grader(timeout_s=grading.timeout_s, own=grading.grader) as grader,
        track("grade", total=source.shards, unit="shards", done=done) as bar,
        closing(shards_to_make(folder, lambda _: bar.advance())) as todo,
    ):
        for shard in todo:
            table = source.read_shard(shard)
            grades = grader.grade_many(
                list(zip(table["completion"].to_pylist(), table["answer"].to_pylist(), strict=True))
            )
            table = _with(table, pred=[g.pred for g in grades], grade=[g.status for g in grades])
            folder.write_shard(shard, table)
            bar.advance()
    return dst
