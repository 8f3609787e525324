"""Workers are killed from outside: the results are those of an undisturbed run."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from o1p_jax.grading.grader import Grader
from o1p_jax.grading.workers import Workers
from o1p_jax.runtime.errors import BadInput


@pytest.fixture
def workers():
    workers = Workers(1, timeout_s=5)
    yield workers
    workers.close(at_once=True)


def wait_for(path: Path) -> int:
    """Returns the process id that a task has written to the file."""
    while not (path.exists() and path.read_text()):
        time.sleep(0.02)
    return int(path.read_text())


def kill_once(path: Path) -> threading.Thread:
    """Kills, in a thread, the process that writes its id to the file."""
    thread = threading.Thread(target=lambda: os.kill(wait_for(path), signal.SIGKILL))
    thread.start()
    return thread


def tell_and_wait(path: Path) -> str:
    """A task that the first time writes its process's id to the file, and waits to be killed."""
    if path.exists():
        return "done"
    path.write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def test_a_task_whose_worker_is_killed_is_done_again(workers, tmp_path):
    thread = kill_once(tmp_path / "pid")
    assert workers.run(tell_and_wait, [(tmp_path / "pid",)]) == ["done"]
    thread.join()


def test_a_worker_that_is_killed_while_it_is_idle_is_replaced(workers):
    (pid,) = workers.run(os.getpid, [()])
    os.kill(pid, signal.SIGKILL)
    (other,) = workers.run(os.getpid, [()])
    assert other not in (None, pid)


@pytest.mark.parametrize("idle", [True, False])
def test_a_fork_server_that_is_killed_is_started_again(workers, tmp_path, idle, monkeypatch):
    monkeypatch.setenv("O1P_TEST_SECRET", "hunter2")
    (worker,) = workers.run(os.getpid, [()])
    server = forkserver._forkserver._forkserver_pid
    if idle:
        os.kill(server, signal.SIGKILL)
        assert workers.run(abs, [(-1,)]) == [1]
    else:
        thread = threading.Thread(target=lambda: (wait_for(tmp_path / "pid"), os.kill(server, signal.SIGKILL)))
        thread.start()
        assert workers.run(tell_and_wait, [(tmp_path / "pid",)]) == ["done"]
        thread.join()
    ends = time.monotonic() + 10
    while Path(f"/proc/{worker}/cmdline").exists():  # it ends with its server, and is left to nobody
        assert time.monotonic() < ends
        time.sleep(0.02)
    (environment,) = workers.run(Path.read_text, [(Path("/proc/self/environ"),)])
    assert "hunter2" not in environment


def test_a_fork_server_that_is_killed_while_workers_are_started_is_started_again(workers, monkeypatch):
    server = forkserver._forkserver
    running, kills = server.ensure_running, []

    def killed_at_once():
        running()
        if len(kills) < 3:
            kills.append(server._forkserver_pid)
            os.kill(kills[-1], signal.SIGKILL)
            os.waitid(os.P_PID, kills[-1], os.WEXITED | os.WNOWAIT)  # it is gone

    monkeypatch.setattr(server, "ensure_running", killed_at_once)
    assert workers.run(abs, [(-1,), (-2,)]) == [1, 2]
    assert len(set(kills)) == 3


def test_a_task_that_ends_its_own_process_is_not_done_for_ever(workers):
    assert workers.run(os._exit, [(3,)]) == [None]
    assert workers.run(signal.raise_signal, [(signal.SIGKILL,)]) == [None]
    assert workers.run(abs, [(-2,)]) == [2]


def test_a_machine_without_shared_memory_is_refused_in_one_line(workers, monkeypatch):
    def no_semaphores(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_semaphores)
    with pytest.raises(BadInput, match=r"No such file or directory.*mount /dev/shm") as error:
        workers.run(abs, [(-1,)])
    assert "\n" not in str(error.value)


def test_grades_do_not_depend_on_kills():
    pairs = [(rf"\boxed{{x+{k}}}", f"{k}+x" if k % 2 else f"{k + 1}+x") for k in range(12)]
    with Grader(workers=1) as grader:
        calm = grader.grade_many(pairs)
        (pid,) = grader._workers.run(os.getpid, [()])
        os.kill(pid, signal.SIGKILL)
        assert grader.grade_many(pairs) == calm
    assert [grade.status for grade in calm] == ["wrong", "correct"] * 6


def test_a_program_needs_no_guard_and_is_not_run_again(tmp_path):
    """A worker that imports the program would start workers of its own, and end."""
    program = tmp_path / "program.py"
    program.write_text(
        "from o1p_jax.grading.grader import Grader\n"
        "print('begun')\n"
        "with Grader(workers=1) as grader:\n"
        "    print(*(grade.status for grade in grader.grade_many([(r'\\boxed{1+x}', 'x+1')])))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["begun", "correct"], "")
