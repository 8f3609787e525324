"""Single processes of a job are killed or stopped: graders below the whole job, workers of a training of two."""

import os
import random
import signal
import socket
import time
from pathlib import Path

from tests.torture.job import PATIENCE_S, ROOT, Command, Home

JOINED = "2 processes on"
GRADER = """
import time

def grade(solution, answer):
    time.sleep(0.02)
    return len(solution) % 2 == 0
"""


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Disturbs the one or the other kind of job."""
    (trained if number % 2 else graded)(home, rng, number)


def graded(home: Home, rng: random.Random, number: int) -> None:
    """Kills or stops processes below the whole job, whose solutions are graded by a user's function in them."""
    grader = home.folder / "grader.py"
    grader.write_text(GRADER)
    flag = f"--grading.grader={grader}:grade"
    undisturbed = home.folder / "graded"
    if not (undisturbed / "digest.txt").exists():
        Command(home, home.job(undisturbed, flag)).judge((0,))
    run = home.folder / f"graded-{number}"
    command = Command(home, home.job(run, flag))
    deadline = time.monotonic() + rng.uniform(0, 1.5 * home.seconds)
    while command.wait(0.01) is None:
        below = descendants(command.process.pid)
        if below and time.monotonic() > deadline:
            hit(rng.choice(below), rng)
            deadline = time.monotonic() + rng.uniform(0, home.seconds)
    command.judge((0, 69, 75))
    Command(home, home.job(run, flag)).judge((0,))
    home.assert_same(run, undisturbed)


def trained(home: Home, rng: random.Random, number: int) -> None:
    """Kills or stops one of the four processes (two supervisors, two workers) of a training of two."""
    undisturbed, run = home.folder / "pair", home.folder / f"pair-{number}"
    if not (undisturbed / "model" / "config.json").exists():
        for command in [Command(home, line) for line in pair(undisturbed)]:
            command.judge((0,))
    lines = pair(run)
    commands = [Command(home, line) for line in lines]
    time.sleep(rng.uniform(0, 1.2 * home.seconds))
    parents = [command.process.pid for command in commands]
    hit(rng.choice([*parents, *(pid for parent in parents for pid in descendants(parent))]), rng)
    ends = time.monotonic() + PATIENCE_S
    while None in (codes := [command.wait(0.1) for command in commands]) and time.monotonic() < ends:
        ended = 1 - codes.index(None)
        if codes[ended] is not None and JOINED not in commands[0].log.read_text():  # the other one waits for it
            commands[ended].judge((0, 75, -9))
            commands[ended] = Command(home, lines[ended])
    for command in commands:
        command.judge((0, 75, -9))
        command.kill()
    for command in [Command(home, line) for line in pair(run)]:
        command.judge((0,))
    for name in ("digest.txt", "model/model.safetensors"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), f"{name} differs"


def pair(run: Path) -> list[list[str]]:
    """Returns the command lines of a training's two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(ROOT / "tests" / "helpers" / "drive_train.py"), str(run), "4", "2", "2x1"]
    command += [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    return [[*command, f"--process={i}"] for i in range(2)]


def hit(pid: int, rng: random.Random) -> None:
    """Kills the process, or stops it for a while."""
    try:
        if rng.random() < 0.5:
            os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 3))
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:  # it came to its own end
        pass


def descendants(pid: int) -> list[int]:
    """Returns the processes below `pid`, without Python's tracker of semaphores.

    A tracker that is started in place of a killed one prints a traceback of its own for each semaphore that it does not
    know, which is Python's to mend and changes no result.
    """
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        hit_too = [
            child for child in children if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    except OSError:
        return []
    return [*hit_too, *(below for child in children for below in descendants(child))]
