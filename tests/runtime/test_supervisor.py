"""The supervisor of a worker: its last words, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from o1p_jax.runtime.supervisor import LastWords

ROOT = Path(__file__).parents[2]

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
    words = LastWords()
    words.listen(PEER.splitlines(keepends=True))
    assert words.lost == {1, 2}
    assert capfd.readouterr().err == "load model: 13/13 weights done\n"
    words = LastWords()
    words.listen(LEADER.splitlines(keepends=True))
    assert words.lost == {0} and words.error.startswith("internal error") and not words.error_first
    assert capfd.readouterr().err == ""


def test_a_worker_that_fails_alone_ends_with_its_own_line_and_code():
    command = [sys.executable, ROOT / "launch" / "train.py", "--coordinator=127.0.0.1:1", "--processes=2"]
    done = subprocess.run([*command, "--process=1", "--mesh=8y1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [line[:14] for line in done.stderr.splitlines()] == ["error: mesh=8y1"[:14]]


STOPPED = f"""
import os, sys
from o1p_jax.runtime.entry import main
from o1p_jax.runtime.place import JobPlace
from o1p_jax.runtime.supervisor import in_worker, supervise

def command(argv):
    if not in_worker():
        return supervise(JobPlace(coordinator="host:1", count=3, index=int(argv[0])))
    print({PEER!r}, file=sys.stderr, flush=True)
    os.abort()

main(command)
"""


@pytest.mark.parametrize(
    ("index", "line"),
    [
        (0, "error: process 1 and process 2 of this job was lost: its own last line may say why; run"),
        (1, "error: process 1: stood still for so long (stopped, or starved of processor time) that the job's other"),
    ],
)
def test_a_process_that_was_stopped_says_so_and_not_that_it_was_lost(tmp_path, index, line):
    (tmp_path / "job.py").write_text(STOPPED)
    command = [sys.executable, tmp_path / "job.py", str(index)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].startswith(line)
