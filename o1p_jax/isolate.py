"""A stage in a process of its own: its memory comes back when it ends, and it may run under another interpreter.

The child is `python -m MODULE JOB.json`, MODULE's last line being `child_main(function)`. Its failures are raised in
the parent as its own would be, SIGTERM and SIGINT are passed on, and it ends when the parent does, even by kill -9.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from o1p_jax import errors
from o1p_jax.errors import BadInput, O1pError, Preempted, SamplerGone
from o1p_jax.files import read_json, write_json

_GRACE_S = 30.0


def run_child(module: str, job: Any, python: str | None = None) -> None:
    """Runs `module` on `job` (a JSON value) under the interpreter `python`, this one if left out."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        write_json(path, job)
        package = str(Path(__file__).parents[1])  # another interpreter's environment may lack o1p_jax
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        }
        try:
            child = subprocess.Popen(
                [python or sys.executable, "-m", module, str(path)], stdin=subprocess.PIPE, env=environment
            )
        except OSError as e:
            raise BadInput(f"sampling.vllm.python={python}: can't be run ({e.strerror}); name an interpreter") from None
        with child:
            try:
                with preemptible():
                    code = child.wait()
            except Preempted:
                child.terminate()
                child.wait()
                raise
        if code == 0:
            return
        if not _failure_path(path).exists():
            raise SamplerGone(
                f"{module}: its process ended with exit code {code}; its last lines say why, and a code of "
                "-9 is most often too little memory"
            )
        name, message = read_json(_failure_path(path))
        raise getattr(errors, name)(message)


def child_main(run: Callable[[Any], Any]) -> None:
    """Calls `run` on the job's JSON value and exits; a failure is left beside the job for the parent to raise."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    path = Path(sys.argv[1])
    try:
        run(read_json(path))
    except O1pError as e:
        write_json(_failure_path(path), [type(e).__name__, str(e)])
        sys.exit(e.exit_code)


@contextmanager
def preemptible() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT raise Preempted."""

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


def _failure_path(job: Path) -> Path:
    return job.with_suffix(".failure.json")


def _die_with_parent() -> None:
    os.read(0, 1)  # returns when the parent is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(Preempted.exit_code)
