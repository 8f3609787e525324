"""A stage runs in a child process: its memory comes back when the child ends, and the interpreter may be another.

The child is `python -m MODULE JOB.json`; the last line of MODULE is `child_main(function)`. A failure of the child is
raised in the parent as the parent's own would be, SIGTERM and SIGINT are passed on to the child, and the child ends
when its parent does, even by kill -9.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from o1p_jax.runtime import errors
from o1p_jax.runtime.errors import BadInput, O1pError, Preempted, SamplerGone
from o1p_jax.runtime.files import read_json, write_json
from o1p_jax.runtime.garbage import collect_rarely
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.signals import preemptible
from o1p_jax.runtime.supervisor import AGAIN, how_it_ended, leave
from o1p_jax.runtime.traces import explained

_GRACE_S = 30.0
"""How long a child whose parent is gone may take to save its state."""


def run_child(module: str, job: Any, python: str | None = None, died: type[O1pError] = SamplerGone) -> None:
    """Runs `module` on `job` (a JSON value) in a child process, under the interpreter `python` or the parent's own.

    `died` is the class of the error for a child that ended without saying why.
    """
    run_children(module, job, [{}], python, died)


def run_children(
    module: str,
    job: Any,
    environments: Sequence[dict[str, str]],
    python: str | None = None,
    died: type[O1pError] = SamplerGone,
) -> None:
    """Runs `module` on the same `job` in several processes at a time, which share the work out among themselves.

    `environments` holds a dictionary for each process: the variables in which its environment differs from this
    process's. A process that fails leaves its share to the others: a failure is raised only if all processes failed.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        package = str(Path(__file__).parents[2])  # another interpreter's environment may lack o1p_jax
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        children = []
        for i, environment in enumerate(environments):
            file = Path(scratch) / f"job-{i}.json"
            write_json(file, job)
            try:
                child = subprocess.Popen(
                    [python or sys.executable, "-m", module, str(file)],
                    stdin=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": path} | environment,
                )
            except OSError as e:
                what = f"sampling.vllm.python={python}: can't be run ({e.strerror}); name an interpreter"
                raise BadInput(what) from None
            children.append((stack.enter_context(child), file))
        try:
            codes = [child.wait() for child, _ in children]
        except Preempted:
            for child, _ in children:
                child.terminate()
            for child, _ in children:  # before their stdin is closed, which ends them at once
                child.wait()
            raise
        failures = [_failure(module, file, code, died) for (_, file), code in zip(children, codes, strict=True) if code]
    if len(failures) == len(codes):
        raise failures[0]
    for failure in failures:
        say(f"{failure} (the others did its share)")


def check_semaphores() -> None:
    """Raises BadInput where processes can't share semaphores, which lie in /dev/shm and the grader needs."""
    try:
        multiprocessing.get_context("fork").Semaphore()  # which forks nothing, and leaves nothing behind
    except OSError as e:
        raise BadInput(
            f"/dev/shm: can't be written ({e.strerror}), and the grader's processes need it; mount it "
            "(docker run --shm-size=1g, in Kubernetes a volume of memory)"
        ) from None


def child_main(run: Callable[[Any], Any]) -> None:
    """Calls `run` on the job's JSON value, in the child.

    A failure is left beside the job's file for the parent to raise.
    """
    path = Path(sys.argv[1])
    collect_rarely()
    try:
        with preemptible():
            threading.Thread(target=_die_with_parent, daemon=True).start()
            run(read_json(path))
    except (O1pError, Preempted) as e:
        error: O1pError | Preempted = e
    except Exception as e:
        traceback.print_exc()
        error = explained(e)
    else:
        return
    write_json(_failure_path(path), [type(error).__name__, str(error)])
    leave(error.exit_code)


def _failure(module: str, job: Path, code: int, died: type[O1pError]) -> O1pError | Preempted:
    """The error that the parent raises for a child that ended with `code`."""
    if _failure_path(job).exists():
        name, message = read_json(_failure_path(job))
        return getattr(errors, name)(message)
    return died(f"{module}: its process {how_it_ended(code)}; its last lines may say why; {AGAIN}")


def _failure_path(job: Path) -> Path:
    return job.with_suffix(".failure.json")


def _die_with_parent() -> None:
    """Stops this process once its stdin ends, which the parent holds open; runs in a thread."""
    os.read(0, 1)  # returns when the parent is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(Preempted.exit_code)
