"""Everything in a run, a pool or a model folder is read and compared with the checksums that were written with it.

What lies in `set_aside/` and in `tensorboard/` is not looked at: no stage reads it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from o1p_jax.config.saved import CONFIG, load_saved
from o1p_jax.data.pool import GRADES, Pool
from o1p_jax.data.shards import META, ShardedTable
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import check_weights
from o1p_jax.runtime.errors import BadInput, CorruptData, O1pError
from o1p_jax.runtime.files import read_summed
from o1p_jax.runtime.progress import track
from o1p_jax.runtime.sums import SUMS, check_sums, is_empty, read_sums, sum_of
from o1p_jax.stages.card import PROVENANCE
from o1p_jax.stages.pool import pool_path
from o1p_jax.stages.weigh import read_report, read_weights
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import DIGEST
from o1p_jax.training.reference import read_part

_REPORT = ("report.html", "report.json", "table.md")
Check = Callable[[], object]
"""A look at one file or more, which raises an O1pError for what is damaged."""


class Part(NamedTuple):
    """What one line of the result is about."""

    name: str
    checks: Sequence[Check]
    found: str
    """What is there, if nothing is damaged."""


def verify(parts: Sequence[Part]) -> None:
    """Makes all checks and prints a line for each part. Raises CorruptData where something is damaged."""
    bad = 0
    with track("verify", total=sum(len(part.checks) for part in parts), unit="checks") as bar:
        for part in parts:
            faults = []
            for check in part.checks:
                if fault := _fault(check):
                    faults.append(fault)
                bar.advance()
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            line = f"DAMAGED  {part.name}: {faults[0]}{more}" if faults else f"ok  {part.name}: {part.found}"
            print(line, flush=True)
            bad += bool(faults)
    if bad:
        raise CorruptData(f"{bad} of {len(parts)} parts are damaged; the lines above name files and remedies")


def parts_of_run(run: Path) -> list[Part]:
    """Returns the parts of a run's folder and of the pool beside it. Raises BadInput where there is no run."""
    if not (run / CONFIG).exists():
        raise BadInput(f"run={run}: no run folder ({CONFIG} is missing)")
    parts = [Part(CONFIG, [lambda: load_saved(run / CONFIG)], "a run's configuration")]
    pool = run / "pool"
    if _fault(parts[0].checks[0]) is None:
        pool = pool_path(replace(load_saved(run / CONFIG)[0], run=str(run)))  # the folder may have been moved
    if pool.exists():
        name = "pool" if pool == run / "pool" else str(pool)
        parts += _guarded(name, lambda: parts_of_pool(pool, name))
    if (run / "weights").exists():
        report = partial(read_report, run / "weights")
        parts += _guarded("weights", lambda: [_table("weights", read_weights(run / "weights"), report)])
    saved = checkpoint.steps(run / "checkpoints")
    for folder in saved:
        name = folder.relative_to(run).as_posix()
        parts.append(Part(name, [partial(_check_checkpoint, folder)], "a whole checkpoint"))
    if (run / DIGEST).exists():
        parts.append(Part(DIGEST, [partial(read_summed, run / DIGEST)], "the last state's SHA-256"))
    if saved:
        steps = int(saved[-1].name)
        parts.append(Part("metrics.jsonl", [partial(_check_metrics, run / "metrics.jsonl", steps)], "a line a step"))
    if (run / "model").exists() and not is_empty(run / "model"):
        parts += _guarded("model", lambda: parts_of_model(run / "model", "model"))
    for folder in sorted(run.glob("round-*")):
        parts += _guarded(folder.name, partial(_parts_of_round, folder))
    for path in sorted(p for name in ("evaluation", "held_out") for p in (run / name / "pools").glob("*")):
        name = path.relative_to(run).as_posix()
        parts += _guarded(name, partial(parts_of_pool, path, name))
    if any((run / "evaluation" / name).exists() for name in (SUMS, *_REPORT)):
        parts.append(Part("evaluation", [partial(_check_report, run / "evaluation")], "a report"))
    return parts


def _parts_of_round(folder: Path) -> list[Part]:
    return [part._replace(name=f"{folder.name}/{part.name}") for part in parts_of_run(folder)]


def parts_of_pool(path: Path, name: str) -> list[Part]:
    """Returns the parts of the pool in the folder `path`, which the result calls `name`."""
    if path.exists() and not Pool.lies_in(path):
        return [Part(name, [], "a pool that was being made; the next start goes on")]
    pool = Pool(path)
    parts = [_table(f"{name}/problems", pool.problems), _table(f"{name}/samples", pool.samples)]
    for meta in sorted(path.glob(f"grades/*/{META}")):
        parts += _guarded(f"{name}/grades/{meta.parent.name}", partial(_grades, name, pool, meta.parent))
    if references := sorted(pool.references.glob("part-*.parquet")):
        checks = [partial(read_part, path) for path in references]
        parts.append(Part(f"{name}/reference", checks, f"{len(references)} parts"))
    return parts


def parts_of_model(folder: Path, name: str) -> list[Part]:
    """Returns the parts of a model's folder, which the result calls `name`. Raises BadInput where there is none."""
    if listed := read_sums(folder):
        checks = [partial(_check_listed, folder, file) for file in listed]
        return [Part(name, checks, f"{len(listed)} files as they were exported")]
    if (folder / PROVENANCE).is_file():
        raise CorruptData(f"{folder / SUMS}: is missing; remove {folder} and export again")
    check_weights(folder, load_config(folder))
    return [Part(name, [], f"no checksums to compare with ({SUMS}); names, shapes and lengths fit config.json")]


def _table(name: str, table: ShardedTable, *more: Check) -> Part:
    missing = table.missing_shards()
    checks = [partial(table.read_shard, shard) for shard in range(table.shards) if shard not in missing]
    return Part(name, [*checks, *more], f"{len(checks)} of {table.shards} shards")


def _grades(name: str, pool: Pool, folder: Path) -> list[Part]:
    """Returns the grades in `folder` as a part: their rows are compared with those of the pool's samples."""
    table = ShardedTable(folder, GRADES)
    missing = {*table.missing_shards(), *pool.samples.missing_shards()}
    there = [shard for shard in range(table.shards) if shard not in missing]
    checks = [partial(pool.read_shard, shard, GRADES.names, table) for shard in there]
    return [Part(f"{name}/grades/{folder.name}", checks, f"{len(there)} of {table.shards} shards")]


def _check_listed(folder: Path, name: str) -> None:
    check_sums(folder, {name: sum_of(folder / name)})


def _check_report(folder: Path) -> None:
    listed = read_sums(folder)
    for name in _REPORT:
        if sum_of(folder / name) != listed.get(name, ""):
            raise CorruptData(f"{folder / name}: is not as it was written; the next start makes the report again")


def _check_checkpoint(folder: Path) -> None:
    if fault := checkpoint.damage(folder):
        raise CorruptData(f"{folder}: {fault}; training and export pass it over for the one before")


def _check_metrics(path: Path, steps: int) -> None:
    """Raises CorruptData where the file lacks the line of one of the first `steps` steps."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for step in range(1, steps + 1):
        try:
            whole = json.loads(lines[step - 1])["step"] == step
        except (IndexError, ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise CorruptData(f"{path}: line {step} is not that of step {step}; no other result depends on the file")


def _guarded(name: str, parts: Callable[[], list[Part]]) -> list[Part]:
    """Returns the parts, or, where damage keeps them from being told, one part that says so."""
    found: list[Part] = []
    fault = _fault(lambda: found.extend(parts()))
    return [Part(name, [partial(_fail, fault)], "")] if fault else found


def _fail(fault: str) -> None:
    raise CorruptData(fault)


def _fault(check: Check) -> str | None:
    """Returns what is wrong, in one line, or None."""
    try:
        check()
    except O1pError as e:
        return str(e)
    except Exception as e:  # damage can break a reader in any way, and the other parts are to be read all the same
        return " ".join(f"not as it was written ({type(e).__name__}: {e})".split())
    return None
