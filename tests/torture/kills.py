"""The whole job is killed, told to stop, and stopped for a while, at random moments."""

import os
import random
import signal
import time

from tests.torture.job import Command, Home

SIGNALS = {"SIGKILL": 6, "SIGTERM": 1, "SIGINT": 1, "SIGSTOP": 1}
"""Signal -> how often it is drawn, in relation."""
EVENTS = 3
"""Disturbances of one run."""


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Disturbs a run three times; then the same command must end it as if nothing had been."""
    run = home.folder / f"killed-{number}"
    for _ in range(EVENTS):
        command = Command(home, home.job(run))
        if command.wait(rng.uniform(1, 1.1 * home.seconds)) is None:
            name = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
            if name == "SIGKILL":
                command.kill()
                continue
            disturb(command, signal.Signals[name], rng)
        command.judge((0, 75))
    Command(home, home.job(run)).judge((0,))
    home.assert_same(run)


def disturb(command: Command, number: signal.Signals, rng: random.Random) -> None:
    """Sends the signal to the command's process or to its whole group; what is stopped goes on after a while."""
    send = rng.choice([os.kill, os.killpg])
    send(command.process.pid, number)
    if number == signal.SIGSTOP:
        time.sleep(rng.uniform(0.5, 3))
        send(command.process.pid, signal.SIGCONT)
