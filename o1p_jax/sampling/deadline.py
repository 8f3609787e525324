"""What hangs in foreign code can't be interrupted, only ended with its process: a deadline does that."""

import os
import sys
import threading
from types import TracebackType

from o1p_jax.runtime.errors import SamplerGone


class Deadline:
    """A context in which `put_off` must be called again within `seconds`; if not, the process ends.

    The process ends with one line on stderr and the exit code of `SamplerGone`, whatever its main thread is doing; a
    shard that it had claimed is then free for others. `what` says in the line who made no progress.
    """

    def __init__(self, seconds: float, what: str):
        self._seconds, self._what = seconds, what
        self._called, self._left = threading.Event(), False

    def put_off(self) -> None:
        """Begins the wait anew."""
        self._called.set()

    def __enter__(self) -> "Deadline":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left = True
        self._called.set()

    def _watch(self) -> None:
        while self._called.wait(self._seconds):
            self._called.clear()
            if self._left:
                return
        line = f"{self._what} made no progress for sampling.timeout_s={self._seconds:g} s"
        print(f"error: {line}; run the command again to go on", file=sys.stderr, flush=True)
        os._exit(SamplerGone.exit_code)
