"""An exception that nobody foresaw becomes an error of one line, and its trace a file in the run's folder."""

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from o1p_jax.runtime.errors import InternalError, O1pError, OutOfMemory, Preempted, wrapped
from o1p_jax.runtime.files import refusal
from o1p_jax.runtime.memory import lacking_memory
from o1p_jax.runtime.supervisor import await_verdict

ERRORS = "errors"
"""The folder in a run's or a pool's folder where traces lie."""


@contextmanager
def traces_in(folder: Path) -> Iterator[None]:
    """An unforeseen exception of the block is raised as `explained` makes it, its trace kept in `folder`/errors."""
    try:
        yield
    except (O1pError, BrokenPipeError):
        raise
    except Exception as e:
        if stopped := wrapped(e, Preempted):
            raise stopped from None
        raise explained(e, folder) from e


def explained(error: Exception, folder: Path | None = None) -> O1pError:
    """Returns what the user is told of an exception: memory or a file that the system refused, or a fault of ours.

    The trace of a fault is written to a file of `folder`/errors, which the message names.
    """
    if (need := lacking_memory(error)) is not None:
        return OutOfMemory(f"{need}; free memory, or take a machine with more")
    if isinstance(error, OSError) and error.filename is not None and (refused := refusal(error, error.filename)):
        return refused
    await_verdict()
    where = "--debug shows where"
    if folder is not None:
        path = folder / ERRORS / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
            where = f"its trace is in {path}"
    return InternalError(f"internal error, please report it ({where}): {type(error).__name__}: {error}")
