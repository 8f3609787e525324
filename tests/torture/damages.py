"""Files are damaged: damage of what the program wrote is noticed, that of what users gave is refused in one line."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from o1p_jax.config.imports import ImportConfig
from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES, Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import make_prompts
from o1p_jax.data.shards import ShardedTable
from o1p_jax.evaluation.page import read_results
from o1p_jax.models.hf.load import check_weights
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import O1pError
from o1p_jax.runtime.files import read_json
from o1p_jax.runtime.sums import SUMS
from o1p_jax.stages.evaluate import is_whole
from o1p_jax.stages.export import is_exported
from o1p_jax.stages.import_pool import import_pool
from o1p_jax.stages.verify import parts_of_run, verify
from o1p_jax.stages.weigh import read_report, read_weights
from o1p_jax.training import checkpoint
from o1p_jax.training.reference import read_part
from tests.torture.job import Home

KINDS = {
    "configuration": "config.json",
    "pool": "**/pool.json",
    "table": "**/_meta.json",
    "shard": "**/part-*.parquet",
    "checksum": "**/*.sha256",
    "report of weights": "weights/_report.json",
    "checkpoint's arrays": "checkpoints/*/*/**/*",
    "checkpoint's facts": "checkpoints/*/*.json",
    "digest": "digest.txt",
    "metrics": "metrics.jsonl",
    "exported weights": "model/*.safetensors",
    "exported files": "model/*.*",
    "report": "evaluation/*.*",
}
"""What a file of a run is -> where such files lie."""
UNSEALED = ("config.json", "metrics.jsonl")
"""Files of which nobody can tell that they hold other values than were written: the configuration, which its user may
change, and figures that nothing depends on."""
GIVEN = ("model", "problems.jsonl", "problems.parquet", "rollouts.parquet")

_undisturbed: dict[str, Any] = {}


def prepare(home: Home) -> None:
    """Writes the other files that a user may give, and notes what the stages read from the undisturbed run."""
    pq.write_table(Pool(home.run / "pool").problems.read(), home.folder / "problems.parquet")
    _undisturbed.update(readings(home.run))
    for name, value in _undisturbed.items():
        assert value is not None and not isinstance(value, O1pError), f"{name}: {value}"


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Damages a file of a run, or, every fourth time, one that a user gives."""
    folder = home.folder / f"damaged-{number}"
    try:
        (given if number % 4 == 3 else made)(home, folder, rng)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made(home: Home, run: Path, rng: random.Random) -> None:
    """Damages a file of a run: no stage may take another value from the run, and `verify` must see the damage."""
    shutil.copytree(home.run, run)
    victim = rng.choice(sorted(path for path in run.glob(KINDS[rng.choice(list(KINDS))]) if path.is_file()))
    before = victim.read_bytes()
    what = f"{victim.relative_to(run)}: {damage(victim, rng)}"
    seen = outcome(lambda: verify(parts_of_run(run)))
    if victim.name in UNSEALED:
        return
    for name, value in readings(run).items():
        noticed = value is None or isinstance(value, O1pError)
        assert noticed or value == _undisturbed[name], f"{what}: believed by {name}"
    if harmless(victim, before):
        return
    assert isinstance(seen, O1pError), f"{what}: verify sees nothing"


def harmless(victim: Path, before: bytes) -> bool:
    """Returns whether the damage looks like work that is not done yet, or is in a name that only sha256sum reads."""
    if not victim.exists():
        return victim.parent.name not in ("model", "evaluation")
    beside = victim.suffix == ".sha256" and victim.name != SUMS
    return beside and victim.is_file() and victim.read_bytes()[:64] == before[:64]


def readings(run: Path) -> dict[str, Any]:
    """Returns what the stages take from a run: values that can be compared, errors, None for what is made again."""
    last = sorted((run / "checkpoints").iterdir())[-1]

    def pool(folder: Path) -> Any:
        found = Pool(folder)
        (grades,) = folder.glob("grades/*")
        columns = [*PROBLEMS.names, *SAMPLES.names, *GRADES.names]
        return found.facts, found.read(columns, ShardedTable(grades, GRADES)).to_pylist()

    def weights() -> Any:
        return asdict(read_report(run / "weights")), read_weights(run / "weights").read().to_pylist()

    def report() -> Any:
        if not is_whole(run / "evaluation"):
            return None
        key = read_json(run / "evaluation" / "report.json")["key"]
        return [asdict(result) for result in read_results(run / "evaluation", key) or []]

    [reference] = (run / "pool" / "reference").glob("part-*.parquet")
    before, after = sorted((run / "evaluation" / "pools").iterdir())
    readers: dict[str, Callable[[], Any]] = {
        "the pool": lambda: pool(run / "pool"),
        "weights": weights,
        "reference": lambda: read_part(reference).to_pylist(),
        "training": lambda: checkpoint.facts_of(last),
        "the model": lambda: find_model(str(run / "model")).digest,
        "export": lambda: is_exported(last, run / "model") or None,
        "the pool before": lambda: pool(before),
        "the pool after": lambda: pool(after),
        "the report": report,
    }
    return {name: outcome(reader) for name, reader in readers.items()}


def given(home: Home, folder: Path, rng: random.Random) -> None:
    """Damages a model, problems or rollouts: they are read, or refused in one line."""
    folder.mkdir()
    for name in GIVEN:
        source = home.folder / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    victim = rng.choice([*sorted((folder / "model").iterdir()), *(folder / name for name in GIVEN[1:])])
    what = f"{victim.relative_to(folder)}: {damage(victim, rng)}"

    def model() -> None:
        source = find_model(str(folder / "model"))
        check_weights(source.folder, source.decoder)

    def prompts(name: str) -> None:
        make_prompts(folder / "model", load_problems(str(folder / name), ProblemConfig()), ProblemConfig())

    files = (str(folder / "rollouts.parquet"),)
    importing = ImportConfig(rollouts=files, pool=str(folder / "pool"), model=str(folder / "model"))
    for reader in (
        model,
        lambda: prompts("problems.jsonl"),
        lambda: prompts("problems.parquet"),
        lambda: import_pool(importing),
    ):
        try:
            outcome(reader)
        except Exception as e:
            raise AssertionError(f"{what}: {type(e).__name__}: {e}") from e


def outcome(reader: Callable[[], Any]) -> Any:
    """Returns what the reader returns, or the error, of one line, that it raises."""
    try:
        return reader()
    except O1pError as e:
        assert "\n" not in str(e), f"an error of several lines: {e}"
        return e


def damage(path: Path, rng: random.Random) -> str:
    """Damages the file so that its contents differ; returns what was done to it."""
    data, stat = path.read_bytes(), path.stat()
    if rng.random() < 0.2:
        path.unlink()
        if rng.random() < 0.5:
            return "removed"
        path.mkdir()
        return "a folder"
    how = rng.choice([flipped, flipped, overwritten, shortened, emptied, random_bytes, another_type, digit])
    changed = how(data, rng)
    path.write_bytes(changed if changed != data else data + b"\0")
    if rng.random() < 0.5:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk would
    return how.__name__


def flipped(data: bytes, rng: random.Random) -> bytes:
    place, changed = rng.randrange(len(data)), bytearray(data)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    block = rng.choice([bytes, rng.randbytes])(rng.randint(1, 512))
    return data[:start] + block + data[start + len(block) :]


def shortened(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def emptied(data: bytes, rng: random.Random) -> bytes:
    return b""


def random_bytes(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(data))


def another_type(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"[]", b"{}", b"null", b"3", b'"text"', b"[" * 2000, b"1" * 5000, b"\xff\xfe", b"NaN"])


def digit(data: bytes, rng: random.Random) -> bytes:
    """Another digit in the place of one: text that still can be read."""
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return flipped(data, rng)
    place = rng.choice(places)
    return data[:place] + str((data[place] - 48 + rng.randint(1, 9)) % 10).encode() + data[place + 1 :]
