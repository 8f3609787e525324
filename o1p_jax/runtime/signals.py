"""A signal that asks the process to stop becomes an exception at once, or a note to act upon when it suits."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from o1p_jax.runtime.errors import Preempted


@contextmanager
def preemptible() -> Iterator[None]:
    """Makes SIGTERM and SIGINT raise `Preempted` inside the block; at the block's end the old handlers are back."""

    def stop(number: int, _frame: Any) -> None:
        for repeated in saved:  # one stop often comes twice: to the group, and passed on by the parent
            signal.signal(repeated, signal.SIG_IGN)
        raise Preempted(f"stopped by {signal.Signals(number).name}; run the same command to go on")

    saved = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


@contextmanager
def processor_time_limit(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in the block once the process has spent so many seconds of processor time in it.

    Outside the main thread, where Python allows no handlers of signals, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"it took more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


_REPEATED_S = 3.0


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Yields a list that the name of SIGTERM or SIGINT is put into when the signal comes.

    A later signal acts as it did before the block, but not one that comes at once: a stop often comes twice, to the
    whole group and passed on by the parent.
    """
    stopped: list[str] = []
    before: dict[int, Any] = {}
    first = 0.0

    def note(number: int, _frame: Any) -> None:
        nonlocal first
        if not stopped:
            first = time.monotonic()
        elif time.monotonic() - first > _REPEATED_S:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        stopped.append(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, note)
    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
