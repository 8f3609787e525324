"""Jobs of several processes: real ones, joined over the loopback address, killed with real signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import environment
from drive_train import tiny_config, tiny_model

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import Preempted, ProcessLost
from o1p_jax.stages.export import export, newest_checkpoint
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import trained_params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STEPS = 20


class Job:
    """`count` processes that run tests/helpers/drive_train.py together, on 8 devices where `mesh` says no other."""

    def __init__(self, home: Path, name: str, count: int, mesh: str = "8x1"):
        self.run = home / name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = environment(ROOT, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
        command = [sys.executable, ROOT / "tests" / "helpers" / "drive_train.py", self.run, "4", "2", mesh]
        places = [[f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={i}"] for i in range(count)]
        self.logs = [home / f"{name}.{i}.log" for i in range(count)]
        self.processes = []
        for log, place in zip(self.logs, places, strict=True):
            with log.open("w") as file:
                self.processes.append(subprocess.Popen([*command, *place], env=variables, stderr=file))

    def codes(self, timeout: float = 300) -> list[int]:
        """Exit codes, once all have ended."""
        deadline = time.monotonic() + timeout
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def last_line(self, index: int) -> str:
        return self.logs[index].read_text().splitlines()[-1]

    def steps(self) -> list[dict]:
        path = self.run / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def await_step(self, step: int) -> None:
        while len(self.steps()) < step:
            assert all(process.poll() is None for process in self.processes), self.last_line(0)
            time.sleep(0.05)

    def worker(self, index: int) -> int:
        """Number of the process below the supervisor `index`."""
        children = Path(f"/proc/{self.processes[index].pid}/task/{self.processes[index].pid}/children")
        return int(children.read_text().split()[0])


def finish(home: Path, name: str, count: int, mesh: str = "8x1") -> Job:
    job = Job(home, name, count, mesh)
    assert job.codes() == [0] * count, [log.read_text() for log in job.logs]
    return job


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    tiny_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def alone(home) -> Job:
    return finish(home, "alone", 1)


@pytest.fixture(scope="module")
def pair(home) -> Job:
    return finish(home, "pair", 2)


def weights(home: Path, job: Job) -> list[np.ndarray]:
    folder = checkpoint.newest(job.run / "checkpoints")
    assert folder is not None and int(folder.name) == STEPS
    params, _ = trained_params(folder, find_model(str(home / "model")), make_mesh("8x1"))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def assert_equal_to_tolerance(home: Path, job: Job, other: Job) -> None:
    ours, theirs = job.steps(), other.steps()
    assert [line["step"] for line in ours] == list(range(1, STEPS + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert (a["tokens"], a["sequences"]) == (b["tokens"], b["sequences"])  # the same samples in every step
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    for a, b in zip(weights(home, job), weights(home, other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_two_processes_train_as_one_does(home, alone, pair):
    assert_equal_to_tolerance(home, pair, alone)


def test_the_first_process_writes_the_log_and_the_export(home, pair):
    assert f"train: {STEPS}/{STEPS} steps" in pair.logs[0].read_text()
    assert pair.logs[1].read_text().count("\n") <= 1  # which process it is, no more
    source = find_model(str(home / "model"))
    again = home / "again"
    export(newest_checkpoint(pair.run), again, make_mesh("2x1"), source)
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (pair.run / "model" / name).read_bytes() == (again / name).read_bytes()


def test_a_killed_process_ends_the_others_and_restarts_end_with_the_same_bits(home, pair):
    for step, victim, which in ((5, 1, "worker"), (9, 0, "worker"), (14, 1, "supervisor")):
        kill(Job(home, "killed", 2), step, victim, which)
    job = finish(home, "killed", 2)
    assert (job.run / "digest.txt").read_text() == (pair.run / "digest.txt").read_text()
    assert [line["loss"] for line in job.steps()] == [line["loss"] for line in pair.steps()]


def kill(job: Job, step: int, victim: int, which: str) -> None:
    """Kills a process of the job after a step; the other one must end by itself and name it."""
    job.await_step(step)
    os.kill(job.worker(victim) if which == "worker" else job.processes[victim].pid, signal.SIGKILL)
    began = time.monotonic()
    code = job.processes[1 - victim].wait(timeout=60)
    assert time.monotonic() - began < 30
    assert code == ProcessLost.exit_code == 75
    lines = job.logs[1 - victim].read_text().splitlines()
    assert lines[-1].startswith(f"error: process {victim} ({socket.gethostname()}) of this job was lost")
    assert not any("Check failure" in line or "coordination" in line for line in lines)
    if which == "worker":
        assert job.processes[victim].wait(timeout=60) == 75
        assert "was killed by SIGKILL" in job.last_line(victim)


def test_one_signal_stops_all_and_other_meshes_and_numbers_of_processes_go_on(home, pair):
    """Four processes go on from the first steps, so that nearly all are theirs: they train as two do."""
    job = Job(home, "moved-1", 2)
    job.await_step(1)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.codes(timeout=60) == [Preempted.exit_code] * 2
    assert "saved on another process's signal" in job.last_line(0)
    assert "saved on SIGTERM" in job.last_line(1)
    shutil.copytree(job.run, home / "moved-4")
    one = finish(home, "moved-1", 1, "2x4")
    assert "made by 2 processes, going on with 1" in one.logs[0].read_text()
    assert "made on mesh fsdp:8, going on on fsdp:2,tensor:4" in one.logs[0].read_text()
    four = finish(home, "moved-4", 4)
    for moved in (one, four):
        assert_equal_to_tolerance(home, moved, pair)


def test_a_mesh_that_leaves_processes_out_is_refused(home):
    job = Job(home, "refused", 2, "fsdp:3")
    assert job.codes() == [2, 2]
    assert "mesh=fsdp:3" in job.last_line(0) and not (home / "refused").exists()
    assert tiny_config(home / "refused").mesh == "8x1"
