"""Processes that fill one folder together: real ones, some of them killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime import claims, owner, progress
from o1p_jax.runtime.claims import Share, shards_to_make, sole_owner
from o1p_jax.runtime.errors import ProcessLost

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


def test_a_process_may_hold_several_claims_and_leaves_the_rest_to_others(tmp_path):
    folder = ShardedTable.create(tmp_path / "r", SCHEMA, {}, 4)
    by_others = []
    with Share(folder, by_others.append) as share:
        assert (share.claim(), share.claim()) == (0, 1)
        with Share(folder, by_others.append) as other:
            assert (other.claim(), other.wait()) == (2, 3)
            assert other.claim() is None
            folder.write_shard(2, [])
            other.finish(2)
            assert share.claim() is None  # shard 3 is the other's
            assert len(list(folder.path.glob(".*.claim"))) == 3
        share._next_look = 0.0
        assert share.claim() == 3 and by_others == [2]
        for shard in (0, 1, 3):
            folder.write_shard(shard, [])
            share.finish(shard)
        assert share.wait() is None
    assert not list(folder.path.glob(".*.claim"))


@pytest.fixture
def folder(tmp_path) -> ShardedTable:
    return ShardedTable.create(tmp_path / "r", SCHEMA, {}, 1)


def claim_of(folder: ShardedTable, owned_by: str) -> Path:
    path = folder.path / ".part-00000.claim"
    path.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "owner": owned_by}))
    return path


ELSEWHERE = "0123456789ab-1-1"
"""A process of another machine, or of another container of this one: its host may have any name."""


class Clock:
    """Stands for this process's own clock and sleep: `look` is called at each sleep, with the seconds gone by."""

    def __init__(self, monkeypatch, look=lambda seconds: None):
        self.now, self.look = 1000.0, look
        monkeypatch.setattr(claims.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(claims.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.look(self.now - 1000)


@pytest.mark.parametrize("offset_s", [-7200, 0, 7200])
def test_another_hosts_claim_holds_while_it_changes_whatever_its_clock_says(folder, monkeypatch, capsys, offset_s):
    path = claim_of(folder, ELSEWHERE)
    beats = 100  # it is alive for longer than a silent claim holds, and then no more

    def look(_: float) -> None:
        nonlocal beats
        if beats:
            beats -= 1
            os.utime(path, (time.time() + offset_s - beats,) * 2)

    look(0)
    clock = Clock(monkeypatch, look)
    assert list(shards_to_make_and_make(folder)) == [0]
    assert 99 * claims._LOOK_S + claims._STALE_S <= clock.now - 1000 < 105 * claims._LOOK_S + claims._STALE_S
    assert not path.exists()
    assert capsys.readouterr().err.count("being made by other processes") == 1


def shards_to_make_and_make(folder: ShardedTable):
    for shard in shards_to_make(folder, lambda _: None):
        folder.write_shard(shard, [])
        yield shard


def test_a_dead_processs_claim_is_taken_at_once(folder, monkeypatch):
    Clock(monkeypatch, lambda _: pytest.fail("waited"))
    machine, number, began = owner.this_process().split("-")
    for dead in (f"{machine}-{number}-{int(began) - 1}", f"{machine}-999999999-{began}"):
        claim_of(folder, dead)
        assert list(shards_to_make_and_make(folder)) == [0]
        folder.shard_path(0).unlink()


def test_a_live_process_of_a_host_of_the_same_name_keeps_its_claim(folder, monkeypatch):
    """Containers may have the same host name, and count their processes from 1."""
    path = claim_of(folder, ELSEWHERE)

    class Waited(Exception):
        pass

    def look(_: float) -> None:
        raise Waited

    Clock(monkeypatch, look)
    with pytest.raises(Waited):
        list(shards_to_make_and_make(folder))
    assert path.exists()


@pytest.mark.parametrize("text", ["", '{"ho', "[]", '{"owner": 5}'])
def test_a_claim_that_says_nothing_does_not_hold_for_ever(folder, monkeypatch, text):
    claim_of(folder, ELSEWHERE).write_text(text)
    clock = Clock(monkeypatch)
    assert list(shards_to_make_and_make(folder)) == [0]
    assert clock.now - 1000 > claims._STALE_S


def wait_for(true) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_claim_is_kept_fresh_while_there_is_progress_and_given_up_on_failure(folder, monkeypatch):
    monkeypatch.setattr(claims, "_BEAT_S", 0.02)
    path = folder.path / ".part-00000.claim"
    todo = shards_to_make(folder, lambda _: None)
    assert next(todo) == 0
    os.utime(path, (0, 0))
    wait_for(lambda: path.stat().st_mtime > 0)
    monkeypatch.setattr(claims, "_STALLED_S", -1.0)  # no progress for long
    time.sleep(0.1)
    os.utime(path, (0, 0))
    time.sleep(0.1)
    assert path.stat().st_mtime == 0
    monkeypatch.setattr(claims, "_STALLED_S", 60.0)
    wait_for(lambda: path.stat().st_mtime > 0)
    todo.close()
    assert not path.exists()


def test_progress_of_any_kind_counts():
    before = progress.last_advance
    with progress.track("sample", total=2, unit="samples") as bar:
        bar.advance(0)
    assert progress.last_advance > before


OWNER = """
import sys, time
from pathlib import Path
from o1p_jax.runtime.claims import sole_owner

with sole_owner(Path(sys.argv[1]), "trains"):
    print("own", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_has_one_owner_and_the_next_takes_over_from_a_killed_one(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-c", OWNER, tmp_path / "run", "60"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert first.stdout is not None and first.stdout.readline() == "own\n"

    def look(_: float) -> None:
        first.kill()
        first.wait()

    monkeypatch.setattr(claims.time, "sleep", look)
    with sole_owner(tmp_path / "run", "trains") as claim:
        line = f"{tmp_path / 'run'}: process {first.pid} on {socket.gethostname()} trains there; waiting for it\n"
        assert capsys.readouterr().err == line
        claim.check()
    assert not list((tmp_path / "run").iterdir())


def test_an_owner_that_stood_still_learns_that_it_is_none_any_more(tmp_path):
    text = json.dumps({"host": "other", "process": 7, "owner": ELSEWHERE})
    with sole_owner(tmp_path, "trains") as claim:
        (tmp_path / ".owner.claim").write_text(text)
        with pytest.raises(ProcessLost, match="process 7 on other has taken it over"):
            claim.check()
    assert (tmp_path / ".owner.claim").read_text() == text  # the other's is left alone
