"""The stage that writes a pool as a data set that Hugging Face `datasets` opens.

    data/train-00000-of-00004.parquet ...   one row a solution, a file for each shard of the pool
    README.md                               the data set's card
    o1p_jax.json                            what the folder was made from

The folder appears whole or not at all and tells no paths of the machine; `launch/import_pool.py` reads it back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax.config.saved import CONFIG, load_saved
from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES, Pool
from o1p_jax.data.shards import META, ShardedTable
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder, public_path, read_json, write_atomic, write_json
from o1p_jax.runtime.progress import say, track
from o1p_jax.runtime.user_code import public_name
from o1p_jax.stages.card import PROVENANCE, rendered
from o1p_jax.stages.pool import pool_path
from o1p_jax.stages.run_folder import hint_at_rounds
from o1p_jax.stages.weigh import WEIGHTS, read_weights

_COLUMNS = {
    "problem_id": "hash of the problem's text and its gold answer",
    "problem": "the problem's text; empty where it is not known",
    "answer": "the gold answer",
    "level": "difficulty, `-` where none is known",
    "source": "the data set or file that the problem came from",
    "split": "its split there",
    "prompt_ids": "the prompt's token ids, the chat template's included",
    "sample_idx": "0, 1, ... within the problem",
    "seed": "the sample's own seed",
    "completion": "the solution's text, without special tokens other than those that mark thoughts",
    "completion_ids": "the solution's token ids as they were sampled, with the end token where the model gave one",
    "finish_reason": "`stop`: the model ended it; `length`: a limit did",
    "pred": "final answer found in the solution; null: none",
    "grade": "`correct`, `wrong`, `unparsed` (no final answer), `timeout` or `bad_gold` (undecided)",
    "reward": "what the solution earned by the run's method",
    "weight": "what the run's training multiplied it with; null: not trained on",
}
"""Every column that a data set may have, in order -> what the column holds."""
_ALWAYS = tuple(name for name in _COLUMNS if name in PROBLEMS.names + SAMPLES.names)
_OF_GRADES = tuple(name for name in _COLUMNS if name in GRADES.names and name not in _ALWAYS)
_OF_WEIGHTS = ("reward", "weight")
_NONE = "none"


def export_pool(path: Path | None, out: Path, run: Path | None = None, grades: str | None = None) -> None:
    """Writes the pool in the folder `path` (None: the pool of `run`) to `out`.

    `run` adds the rewards and weights that the run's method gave the solutions. `grades` names one of several gradings
    by the folder that it lies in, or is `none`. Raises BadInput for a pool that is not complete, and where `out` holds
    something else.
    """
    if path is None:
        if run is None:
            raise BadInput("--pool: missing; name a pool, or a run with --run")
        path = pool_path(replace(load_saved(run / CONFIG)[0], run=str(run)))  # the folder may have been moved
        if not Pool.lies_in(path) and (hint := hint_at_rounds(run)):
            raise BadInput(f"run={run}: has no pool; {hint}")
    pool = Pool(path)
    check_apart("out", out, path, "the pool")
    if run is not None and (run / CONFIG).exists():
        model = load_saved(run / CONFIG)[0].model
        if Path(model).is_dir():
            check_apart("out", out, Path(model), f"model={model}")
    if missing := len(pool.samples.missing_shards()):
        raise BadInput(f"pool={path}: {missing} of {pool.samples.shards} shards are not sampled yet; sample them first")
    weights = None if run is None else _weights(pool, run)
    graded = _grading(pool, grades, weights)
    columns = [*_ALWAYS, *(_OF_GRADES if graded else ()), *(_OF_WEIGHTS if weights else ())]
    made_from = {
        "pool": pool.key,
        "grades": graded and graded.metadata,
        "weights": weights and weights.metadata,
    }
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not (out / PROVENANCE).is_file() or read_json(out / PROVENANCE) != made_from:
            raise BadInput(f"out={out}: exists and holds something else; name another folder")
        return say(f"export: {out} holds this pool already")
    with atomic_folder(out) as temporary:
        rows = _write(pool, graded, weights, columns, temporary / "data")
        write_atomic(temporary / "README.md", rendered("dataset.md.j2", _card(pool, graded, run, columns, rows)))
        write_json(temporary / PROVENANCE, made_from)


def _weights(pool: Pool, run: Path) -> ShardedTable:
    """Returns the run's table of weights. Raises BadInput where they are of another pool."""
    if not (run / "weights" / META).is_file():
        how = hint_at_rounds(run) or "o1p presample or o1p train makes them"
        raise BadInput(f"run={run}: has no weights; {how}")
    weights = read_weights(run / "weights")
    if any(weights.metadata.get(name) != value for name, value in pool.identity.items()):
        raise BadInput(
            f"run={run}: its weights are of other samples than those of {pool.path}; name the run's own pool"
        )
    return weights


def _grading(pool: Pool, wanted: str | None, weights: ShardedTable | None) -> ShardedTable | None:
    """Returns the grades to write: those that `wanted` names, else those behind the weights, else the only ones."""
    if wanted == _NONE:
        return None
    tables = [ShardedTable(folder.parent, GRADES) for folder in sorted(pool.path.glob(f"grades/*/{META}"))]
    found = {table.path.name: table for table in tables if not table.missing_shards()}
    if wanted is not None:
        if wanted not in found:
            raise BadInput(f"grades={wanted}: no such grades; there are {', '.join([*found, _NONE])}")
        return found[wanted]
    if weights is not None:
        found = {name: table for name, table in found.items() if _grader(table).items() <= weights.metadata.items()}
    if len(found) > 1:
        graders = "; ".join(f"{name}, by {_grader_text(table)}" for name, table in found.items())
        raise BadInput(f"pool={pool.path}: graded in {len(found)} ways ({graders}); choose with --grades, or {_NONE}")
    return next(iter(found.values()), None)


def _grader(table: ShardedTable) -> dict[str, Any]:
    return {name: value for name, value in table.metadata.items() if name.startswith("grading.")}


def _grader_text(table: ShardedTable) -> str:
    own = table.metadata["grading.grader"]
    return f"a user's grader, {public_name(own)}" if own else "math-verify"


def _write(
    pool: Pool, graded: ShardedTable | None, weights: ShardedTable | None, columns: Sequence[str], folder: Path
) -> int:
    """Writes the Parquet files, with one shard in memory at a time, and returns the number of rows."""
    folder.mkdir()
    problems = pool.problems.read()
    sources = [public_path(name) for name in problems["source"].to_pylist()]
    problems = problems.set_column(problems.schema.get_field_index("source"), "source", pa.array(sources, pa.string()))
    joined = [table for table in (graded,) if table is not None]
    of_weights = None if weights is None else _by_key(weights)
    shards, rows = pool.samples.shards, 0
    with track("export", total=shards, unit="shards") as bar:
        for shard in range(shards):
            wanted = [name for name in columns if name not in _OF_WEIGHTS]
            table = pool.read_shard(shard, wanted, *joined, problems=problems)
            if of_weights is not None:
                for i, name in enumerate(_OF_WEIGHTS):
                    values = [of_weights[key][i] for key in _keys(table)]
                    table = table.append_column(pa.field(name, WEIGHTS.field(name).type), [values])
            name = f"train-{shard:05}-of-{shards:05}.parquet"
            pq.write_table(table, folder / name, compression="zstd")
            rows += table.num_rows
            bar.advance()
    return rows


def _by_key(weights: ShardedTable) -> dict[tuple[str, int], tuple[float | None, ...]]:
    table = weights.read()
    return dict(zip(_keys(table), zip(*(table[name].to_pylist() for name in _OF_WEIGHTS), strict=True), strict=True))


def _keys(table: pa.Table) -> Iterator[tuple[str, int]]:
    return zip(table["problem_id"].to_pylist(), table["sample_idx"].to_pylist(), strict=True)


def _card(
    pool: Pool, graded: ShardedTable | None, run: Path | None, columns: Sequence[str], rows: int
) -> dict[str, Any]:
    return {
        "model": public_path(pool.facts["model"]),
        "revision": pool.facts["commit"],
        "problems": pool.facts["problems"],
        "solutions": rows,
        "draw": pool.facts.get("draw"),
        "imported": pool.facts.get("imported"),
        "grader": graded and _grader_text(graded),
        "run": run and run.name,
        "columns": {name: _COLUMNS[name] for name in columns},
    }
