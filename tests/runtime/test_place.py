"""A process's place in its job, and the last words of a worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from o1p_jax.runtime import supervisor as launcher
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.place import JobPlace, find_place

ROOT = Path(__file__).parents[2]
SLURM = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "0",
         "SLURM_STEP_NODELIST": "node[003-010]", "SLURM_STEP_NUM_NODES": "8"}  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Nothing of the machine that the tests run on."""
    monkeypatch.setattr(launcher.os, "environ", {})
    monkeypatch.setattr(launcher.glob, "glob", lambda _: [])


def test_alone_where_nothing_says_otherwise(monkeypatch):
    assert find_place(["--mesh=8x1"]) == (None, ["--mesh=8x1"])
    monkeypatch.setattr(launcher.os, "environ", SLURM)
    assert find_place(["--processes=1", "--mesh=8x1"]) == (None, ["--mesh=8x1"])


def test_flags_come_before_variables(monkeypatch):
    variables = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    monkeypatch.setattr(launcher.os, "environ", SLURM | variables)
    assert find_place([])[0] == JobPlace(coordinator="a:1", count=2, index=1)
    place, rest = find_place(["--coordinator=b:2", "--mesh=8x1", "--processes=4", "--process=3"])
    assert place == JobPlace(coordinator="b:2", count=4, index=3) and rest == ["--mesh=8x1"]
    spaced = ["--coordinator", "b:2", "--mesh", "8x1", "--processes", "4", "--process", "3"]
    assert find_place(spaced) == (place, ["--mesh", "8x1"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--coordinator=a:1"], "--processes: missing"),
        (["--coordinator=a", "--processes=2", "--process=0"], "--coordinator=a: must be HOST:PORT"),
        (["--coordinator=a:1", "--processes=two", "--process=0"], "--processes=two: must be the number"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], "--process=2: must be .* 0 to 1"),
        (["--coordinator=a:1", "--processes=2", "--process=-1"], "--process=-1: must be .* 0 to 1"),
    ],
)
def test_a_bad_place_is_refused(argv, message):
    with pytest.raises(BadInput, match=message):
        find_place(argv)


@pytest.mark.parametrize(
    ("changes", "coordinator", "local_device"),
    [
        ({}, "node003:24711", None),
        ({"SLURM_STEP_NODELIST": "gpu1"}, "gpu1:24711", None),
        ({"SLURM_STEP_NODELIST": "gpu1,gpu2"}, "gpu1:24711", None),
        ({"SLURM_STEP_NODELIST": "c[7,9-12],d1"}, "c7:24711", None),
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3"}, "node003:24711", 3),  # four tasks a node share its GPUs
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "3"}, "node003:24711", None),
    ],
)
def test_slurm(monkeypatch, changes, coordinator, local_device):
    monkeypatch.setattr(launcher.os, "environ", SLURM | changes)
    assert find_place([])[0] == JobPlace(coordinator=coordinator, count=8, index=3, local_device=local_device)


def test_one_task_of_an_array_or_a_shell_in_an_allocation_is_alone(monkeypatch):
    for changes in ({"SLURM_NTASKS": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        monkeypatch.setattr(launcher.os, "environ", SLURM | changes)
        assert find_place([])[0] is None
    monkeypatch.setattr(launcher.os, "environ", {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"})  # not under srun
    assert find_place([])[0] is None


def test_a_tpu_host_asks_jax(monkeypatch):
    monkeypatch.setattr(launcher.os, "environ", {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"})
    assert find_place([])[0] == JobPlace(coordinator=None)
    variables = {"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_SKIP_MDS_QUERY": "true"}  # as on GKE
    monkeypatch.setattr(launcher.os, "environ", variables)
    assert find_place([])[0] == JobPlace(coordinator=None)
    monkeypatch.setattr(launcher.os, "environ", {})
    monkeypatch.setattr(launcher.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: None)
    assert find_place([])[0] is None  # another device's driver
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert find_place([])[0] == JobPlace(coordinator=None)
    monkeypatch.setattr(launcher.os, "environ", {"JAX_PLATFORMS": "cpu"})
    assert find_place([])[0] is None


# What JAX 0.10.2 writes when a process of a job dies.
PEER = """load model: 13/13 weights done
E1125 21:10:38.301576   24347 coordination_service.cc:1549] [149] Use error polling to propagate the following error \
to all tasks: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
2
The tasks have crashed. Check the task logs for an earlier error, or scheduler events to debug further.
E1125 21:10:38.302200   24358 coordination_service_agent.cc:289] Polled an error from coordination service.
F1125 21:10:38.302358   24358 client.h:80] Terminating process because the JAX distributed service detected fatal \
errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
2
*** Check failure stack trace: ***
    @     0x7f89da340634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""
LEADER = """F1125 21:10:48.480670   24477 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors. absl::Status: UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task \
was preempted/died/restarted unexpectedly or this task is experiencing network issues.
error: internal error, please report it (--debug shows where): JaxRuntimeError: Connection closed by peer
*** Check failure stack trace: ***
"""


def test_last_words_name_the_lost_processes_and_drop_the_trace(capfd):
    words = launcher._LastWords()
    words.listen(PEER.splitlines(keepends=True))
    assert words.lost == {1, 2}
    assert capfd.readouterr().err == "load model: 13/13 weights done\n"
    words = launcher._LastWords()
    words.listen(LEADER.splitlines(keepends=True))
    assert words.lost == {0} and words.error.startswith("internal error") and not words.error_first
    assert capfd.readouterr().err == ""


def test_a_worker_that_fails_alone_ends_with_its_own_line_and_code():
    command = [sys.executable, ROOT / "launch" / "train.py", "--coordinator=127.0.0.1:1", "--processes=2"]
    done = subprocess.run([*command, "--process=1", "--mesh=8y1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [line[:14] for line in done.stderr.splitlines()] == ["error: mesh=8y1"[:14]]
