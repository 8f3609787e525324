"""A process of a job of several processes is watched: when another process of the job dies, one line says so.

Each process of the job is two processes of the system: a supervisor, which imports no JAX, and the worker that does the
job. When a process of the job dies, JAX aborts the other workers from C++ with a long trace; the supervisor prints one
line in its place.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from o1p_jax.runtime.errors import O1pError, ProcessLost
from o1p_jax.runtime.place import JobPlace
from o1p_jax.runtime.signals import ignore_stops

AGAIN = "run the same command again to go on from what is saved"
_WORKER = "O1P_WORKER"
"""A variable in a worker's environment: the folder where the worker leaves the hosts' names for its supervisor."""
_VERDICT_S = 30.0
"""How long a worker that failed waits for JAX to learn that another process died."""
_LAST_WORDS_S = 2.0
"""How long a worker that failed lets the other workers, who fail of the same cause, say so themselves."""


def supervise(place: JobPlace) -> None:
    """Runs this command again as a worker, and returns when the worker ended well.

    Raises the error that the worker ended with, or `ProcessLost` when a process of the job died.
    """
    with tempfile.TemporaryDirectory() as scratch:
        worker = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            stdin=subprocess.PIPE,  # at its end the worker knows that its supervisor is gone
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {_WORKER: scratch},
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: worker.send_signal(number))
        words = LastWords()
        assert worker.stderr is not None
        reader = threading.Thread(target=words.listen, args=(worker.stderr,), daemon=True)
        reader.start()
        code = worker.wait()
        reader.join(timeout=2)  # a grandchild that still holds the pipe is not waited for
        try:
            hosts = json.loads((Path(scratch) / "hosts.json").read_text())
        except FileNotFoundError:
            hosts = []

    def name(index: int) -> str:
        return f"process {index}" + (f" ({hosts[index]})" if index < len(hosts) else "")

    own = hosts.index(socket.gethostname()) if place.coordinator is None and hosts else place.index
    if code == 0:
        return
    if words.error and words.error_first:
        raise _Ended(f"{name(own)}: {words.error}" if own else words.error, code)
    if own in words.lost:
        raise ProcessLost(
            f"{name(own)}: stood still for so long (stopped, or starved of processor time) that the job's other "
            f"processes gave it up; {AGAIN}"
        )
    if words.lost:
        who = " and ".join(map(name, sorted(words.lost)))
        raise ProcessLost(f"{who} of this job was lost: its own last line may say why; {AGAIN}")
    if words.error:
        raise _Ended(words.error, code)
    if code == -signal.SIGABRT:
        raise ProcessLost(f"{name(own)}: aborted, most often because another process ended or never came; {AGAIN}")
    raise ProcessLost(f"{name(own)} {how_it_ended(code)}; {AGAIN}")


def how_it_ended(code: int) -> str:
    """Returns, in words, how a process ended whose exit code, as `subprocess` has it, is `code`."""
    if code >= 0:
        return f"ended with exit code {code}"
    why = " (most often: too little memory)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{why}"


def in_worker() -> bool:
    """Returns whether a supervisor runs above this process."""
    return _WORKER in os.environ


def tell_supervisor(hosts: list[str]) -> None:
    """Leaves the names of all processes' hosts, in the processes' order, for the supervisor's messages."""
    (Path(os.environ[_WORKER]) / "hosts.json").write_text(json.dumps(hosts))


def end_with_supervisor() -> None:
    """Makes this worker end when its supervisor is gone, even by kill -9."""

    def watch() -> None:
        os.read(0, 1)  # returns then
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def await_verdict() -> None:
    """Waits, after a failure that another process's death most often causes: JAX is about to notice it and to abort.

    Does nothing in a process that no supervisor watches.
    """
    if in_worker():
        time.sleep(_VERDICT_S)


def leave(exit_code: int) -> NoReturn:
    """Ends a process that failed; a worker ends without waiting for the other processes of its job."""
    ignore_stops()
    if not in_worker():
        sys.exit(exit_code)
    sys.stdout.flush()
    time.sleep(_LAST_WORDS_S)
    os._exit(exit_code)  # the interpreter's own end would wait for the job's other processes


class LastWords:
    """Passes a worker's stderr on, except for its last error and for what C++ prints about lost processes."""

    def __init__(self) -> None:
        self.error = ""
        self.error_first = False
        """Whether the error came before anything about lost processes."""
        self.lost: set[int] = set()

    def listen(self, lines: Iterable[str]) -> None:
        """Reads the worker's stderr to its end."""
        aborting = listing = False
        for line in lines:
            if re.match(r"[EF]\d{4} .*(coordination_service|client\.h)", line):
                aborting = True
                listing = line.rstrip().endswith("(stopped sending heartbeats):")
                if "Failed to send RPC to coordination service" in line:
                    self.lost.add(0)
            elif listing and line.strip().isdecimal():
                self.lost.add(int(line))
            elif line.startswith("error: "):
                self.error, self.error_first = line.removeprefix("error: ").strip(), not aborting
            elif not aborting:
                print(line, end="", file=sys.stderr, flush=True)


class _Ended(O1pError):
    """The error that the worker reported last, with its exit code."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code if exit_code > 0 else ProcessLost.exit_code
