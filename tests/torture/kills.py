"""The whole job is killed, told to stop, and stopped at random moments; many of them while a checkpoint is written."""

import os
import random
import signal
import time
from pathlib import Path

from o1p_jax.training.checkpoint import steps
from tests.torture.job import Command, Home

SIGNALS = {"SIGKILL": 6, "SIGTERM": 1, "SIGINT": 1, "SIGSTOP": 1}
"""Signal -> how often it is drawn, in relation."""
EVENTS = 3
"""Disturbances of one run."""
WHILE_WRITTEN = 0.3
"""Share of the disturbances that wait for a checkpoint to be in the making, if the job comes to one."""


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Disturbs a run three times; then the same command must end it as if nothing had been."""
    run = home.folder / f"killed-{number}"
    for _ in range(EVENTS):
        command = Command(home, home.job(run))
        runs = command.wait(rng.uniform(1, 1.1 * home.seconds)) is None
        if runs and rng.random() < WHILE_WRITTEN:
            runs = await_a_write(command, run / "checkpoints")
        if runs:
            name = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
            if name == "SIGKILL":
                command.kill()
                continue
            disturb(command, signal.Signals[name], rng)
        command.judge((0, 75))
    Command(home, home.job(run)).judge((0,))
    home.assert_same(run)


def await_a_write(command: Command, checkpoints: Path) -> bool:
    """Waits until the command writes a checkpoint; returns False where it came to its end before."""
    left = set(checkpoints.glob("*"))
    while command.wait(0.002) is None:
        if set(checkpoints.glob("*")) - left - set(steps(checkpoints)):
            return True
    return False


def disturb(command: Command, number: signal.Signals, rng: random.Random) -> None:
    """Sends the signal to the command's process or to its whole group; what is stopped goes on after a while."""
    send = rng.choice([os.kill, os.killpg])
    send(command.process.pid, number)
    if number == signal.SIGSTOP:
        time.sleep(rng.uniform(0.5, 3))
        send(command.process.pid, signal.SIGCONT)
