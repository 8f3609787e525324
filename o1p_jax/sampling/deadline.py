"""What hangs in foreign code can't be interrupted, only ended with its process: a deadline does that."""

import os
import sys
import threading
import time
from types import TracebackType

from o1p_jax.runtime.errors import SamplerGone

_LOOK_S = 1.0


class Deadline:
    """A context that must be left within `seconds` each time that it is entered; if not, the process ends.

    The process ends with one line on stderr and the exit code of `SamplerGone`, whatever its main thread is doing; the
    shards that it had claimed are then free for others. `what` says in the line who made no progress.
    """

    def __init__(self, seconds: float, what: str):
        self._seconds, self._what = seconds, what
        self._until: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> "Deadline":
        self._until = time.monotonic() + self._seconds
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._until = None

    def close(self) -> None:
        """Ends the watch for good."""
        self._closed.set()

    def _watch(self) -> None:
        while (until := self._until) is None or time.monotonic() < until:
            if self._closed.wait(min(_LOOK_S, self._seconds / 2)):
                return
        line = f"{self._what} made no progress for sampling.timeout_s={self._seconds:g} s"
        print(f"error: {line}; run the command again to go on", file=sys.stderr, flush=True)
        os._exit(SamplerGone.exit_code)
