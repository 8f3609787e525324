"""SIGTERM and SIGINT ask a process to stop; here they become an exception."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from o1p_jax.runtime.errors import Preempted


@contextmanager
def preemptible() -> Iterator[None]:
    """Makes SIGTERM and SIGINT raise `Preempted` inside the block; at its end the old handlers are back."""

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
