"""Processes that fill one folder together: real ones, some of them killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime import claims
from o1p_jax.runtime.claims import shards_to_make

SHARDS = 12
SCHEMA = pa.schema([("problem_id", pa.string())])
WORKER = """
import sys, time
from contextlib import closing
import pyarrow as pa
from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime.claims import shards_to_make

schema = pa.schema([("problem_id", pa.string())])
folder = ShardedTable.create(sys.argv[1], schema, {"made": "by several"}, int(sys.argv[2]))
with closing(shards_to_make(folder, lambda _: None)) as todo:
    for shard in todo:
        print(shard, flush=True)
        time.sleep(float(sys.argv[3]))
        folder.write_shard(shard, [{"problem_id": f"p{shard}"}])
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, folder, str(SHARDS), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def problems(folder: Path) -> list[str]:
    return ShardedTable(folder, SCHEMA).read(["problem_id"])["problem_id"].to_pylist()


def test_every_shard_is_made_by_one_of_several(tmp_path):
    workers = [start(tmp_path / "r", 0.1) for _ in range(3)]
    made = [list(map(int, worker.communicate()[0].split())) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(shard for shards in made for shard in shards) == list(range(SHARDS)) and sum(map(bool, made)) >= 2
    assert problems(tmp_path / "r") == [f"p{i}" for i in range(SHARDS)]
    assert not list((tmp_path / "r").glob("*.claim"))


def test_the_share_of_one_that_is_lost_is_done_by_the_others(tmp_path):
    lost = start(tmp_path / "r", 60)
    assert lost.stdout is not None
    first = int(lost.stdout.readline())
    other = start(tmp_path / "r", 0.01)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "r").glob("*.parquet"))) < SHARDS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert other.poll() is None  # it waits for the shard that is being made
    os.kill(lost.pid, signal.SIGKILL)
    lost.wait()
    assert first in map(int, other.communicate(timeout=60)[0].split())
    assert problems(tmp_path / "r") == [f"p{i}" for i in range(SHARDS)]


@pytest.fixture
def folder(tmp_path) -> ShardedTable:
    return ShardedTable.create(tmp_path / "r", SCHEMA, {}, 1)


def claim_of_another_host(folder: ShardedTable, age_s: float) -> Path:
    path = folder.path / ".part-00000.claim"
    path.write_text('{"host": "elsewhere", "process": 1}')
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_another_hosts_claim_holds_until_it_is_silent_for_long(folder, monkeypatch, capsys):
    monkeypatch.setattr(claims, "_LOOK_S", 0.01)
    path = claim_of_another_host(folder, 0)
    looks = []

    def look(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            claim_of_another_host(folder, claims._STALE_S + 60)

    monkeypatch.setattr(claims.time, "sleep", look)
    assert list(shards_to_make_and_make(folder)) == [0]
    assert len(looks) == 3 and not path.exists()
    assert capsys.readouterr().err.count("being made by other processes") == 1


def shards_to_make_and_make(folder: ShardedTable):
    for shard in shards_to_make(folder, lambda _: None):
        folder.write_shard(shard, [])
        yield shard


def test_a_claim_of_this_process_in_an_earlier_life_or_half_written_does_not_hold_for_ever(folder):
    path = folder.path / ".part-00000.claim"
    path.write_text(f'{{"host": "{claims.socket.gethostname()}", "process": {os.getpid()}}}')
    assert list(shards_to_make_and_make(folder)) == [0]
    folder.shard_path(0).unlink()
    path.write_text('{"ho')
    os.utime(path, (time.time() - claims._STALE_S - 60,) * 2)
    assert list(shards_to_make_and_make(folder)) == [0]


def test_a_claim_is_kept_fresh_and_given_up_on_failure(folder, monkeypatch):
    monkeypatch.setattr(claims, "_BEAT_S", 0.02)
    path = folder.path / ".part-00000.claim"
    todo = shards_to_make(folder, lambda _: None)
    assert next(todo) == 0
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    todo.close()
    assert not path.exists()
