"""A signal that asks the process to stop becomes an exception at once, or a note to act upon when it suits."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from o1p_jax.runtime.errors import Preempted, wrapped

_STOPS = (signal.SIGTERM, signal.SIGINT)
_REPEATED_S = 3.0
"""A signal that comes so soon after the first is the same stop: sent to the whole group, and by the parent again."""


_AGAIN_S = 0.1


@contextmanager
def preemptible() -> Iterator[None]:
    """Makes SIGTERM and SIGINT raise `Preempted` inside the block; at the block's end the old handlers are back.

    Python drops what is raised in a destructor or in a callback of the garbage collector, such as JAX's: a stop that
    comes there is raised a moment later, or at the block's end. A library that takes a stop for a failure, as an import
    or Orbax does, raises another exception from it: the block ends with `Preempted` all the same.
    """
    dropped: list[tuple[BaseException, threading.Timer]] = []
    report = sys.unraisablehook

    def stop(number: int) -> None:
        raise Preempted(f"stopped by {signal.Signals(number).name}; run the same command to go on")

    def note(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Preempted):
            return report(unraisable)
        dropped.append((unraisable.exc_value, threading.Timer(_AGAIN_S, again)))
        dropped[-1][1].start()

    with _handled(stop) as again:
        sys.unraisablehook = note
        try:
            yield
        except Exception as e:
            if stopped := wrapped(e, Preempted):
                raise stopped from None
            raise
        finally:
            sys.unraisablehook = report
            waiting = [stopped for stopped, timer in dropped if timer.is_alive()]
            for _, timer in dropped:
                timer.cancel()
    if waiting:
        raise waiting[0]


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Yields a list that the name of SIGTERM or SIGINT is put into when the signal comes.

    A later signal acts as it did before the block, unless it is the same stop.
    """
    stopped: list[str] = []
    before = {int(number): signal.getsignal(number) for number in _STOPS}

    def note(number: int) -> None:
        if stopped:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        stopped.append(signal.Signals(number).name)

    with _handled(note):
        yield stopped


def ignore_stops() -> None:
    """From now on SIGTERM and SIGINT change nothing: the process is about to end, and how is settled."""
    for number in _STOPS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which child processes would inherit
        atexit.register(signal.signal, number, signal.SIG_IGN)  # the interpreter's end gives up any other handler


@contextmanager
def _handled(act: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Calls `act` in the block on SIGTERM and SIGINT, once for each stop; yields what brings the last stop again."""
    last, latest = -_REPEATED_S, signal.SIGTERM

    def handle(number: int, _frame: Any) -> None:
        nonlocal last, latest
        if time.monotonic() - last >= _REPEATED_S:
            last, latest = time.monotonic(), signal.Signals(number)
            act(number)

    def again() -> None:
        nonlocal last
        last = -_REPEATED_S
        os.kill(os.getpid(), latest)

    saved = {number: signal.signal(number, handle) for number in _STOPS}
    try:
        yield again
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
