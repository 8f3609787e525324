"""Stages in processes of their own, on children that are real."""

import errno
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from o1p_jax.runtime.children import check_semaphores, run_child, run_children
from o1p_jax.runtime.errors import BadInput, DiskError, InternalError, Preempted, ProcessLost, SamplerGone

CHILD = """
import os, signal, sys, time
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.errors import DiskError

def run(job):
    if "fail" in job:
        raise DiskError(job["fail"])
    if "code" in job:
        os._exit(job["code"])
    if "kill" in job:
        os.kill(os.getpid(), job["kill"])
        time.sleep(60)
    if "divide" in job:
        job["divide"] / 0
    if "sleep" in job:
        open(job["started"], "w").close()
        time.sleep(job["sleep"])
    open(job["out"], "w").write(sys.executable)

child_main(run)
"""


@pytest.fixture
def child(tmp_path, monkeypatch) -> str:
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def test_a_job_is_done_elsewhere(child, tmp_path):
    run_child(child, {"out": str(tmp_path / "out")})
    assert (tmp_path / "out").read_text() == sys.executable


def test_failures_are_raised_here(child):
    with pytest.raises(DiskError, match="x: disk full"):
        run_child(child, {"fail": "x: disk full"})
    with pytest.raises(SamplerGone, match="exit code 9"):
        run_child(child, {"code": 9})
    with pytest.raises(BadInput, match="/no/such: can't be run"):
        run_child(child, {}, python="/no/such")
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        run_child(child, {"divide": 1})


def test_a_killed_child_is_named_with_how_it_ended(child):
    with pytest.raises(ProcessLost, match=r"a_child: its process was killed by SIGKILL \(most often: too little"):
        run_child(child, {"kill": signal.SIGKILL}, died=ProcessLost)
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        run_child(child, {"kill": signal.SIGTERM})


def test_several_share_a_job_and_one_that_fails_leaves_it_to_the_others(child, tmp_path, capfd):
    out = {"out": str(tmp_path / "out")}
    run_children(child, out, [{}, {"PYTHONPATH": "/nowhere"}])
    assert (tmp_path / "out").exists()
    assert "exit code 1" in capfd.readouterr().err.splitlines()[-1]
    with pytest.raises(DiskError, match="x: disk full"):
        run_children(child, {"fail": "x: disk full"}, [{}, {}])


def test_a_machine_without_shared_memory_is_told_before_anything_begins(monkeypatch):
    check_semaphores()

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.get_context("fork"), "Semaphore", refused)
    with pytest.raises(BadInput, match=r"/dev/shm: can't be written \(Read-only file system\).*--shm-size"):
        check_semaphores()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _parent(child: str, tmp_path: Path) -> subprocess.Popen:
    job = {"sleep": 120, "started": str(tmp_path / "started"), "out": str(tmp_path / "out")}
    code = (
        "from o1p_jax.runtime.children import run_child; from o1p_jax.runtime.signals import preemptible\n"
        f"with preemptible(): run_child({child!r}, {job!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "started")
    return process


def test_sigterm_is_passed_on(child, tmp_path):
    parent = _parent(child, tmp_path)
    parent.send_signal(signal.SIGTERM)
    assert "Preempted: stopped by SIGTERM" in parent.communicate(timeout=60)[1]
    assert not (tmp_path / "out").exists()


def test_a_child_ends_with_its_parent(child, tmp_path):
    parent = _parent(child, tmp_path)
    [pid] = [int(p) for p in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.kill()
    parent.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "out").exists()
