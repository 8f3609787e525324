"""Where a command begins: signals are heeded from the first moment, and any failure is one line and an exit code.

The module imports little, so that little can happen before the handlers of signals stand: a command imports what it
needs when it is called.
"""

import os
import select
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from o1p_jax.runtime.errors import O1pError, Preempted
from o1p_jax.runtime.garbage import collect_rarely
from o1p_jax.runtime.signals import ignore_stops, preemptible
from o1p_jax.runtime.supervisor import end_with_supervisor, in_worker, leave
from o1p_jax.runtime.traces import explained

_NOBODY_READS = 141
"""The exit code of a program whose output nobody reads any more, as shells know it (128 + SIGPIPE)."""


def main(command: Callable[[list[str]], Any]) -> None:
    """Runs `command` on the arguments and exits. A failure is one line on stderr; `--debug` shows its trace too.

    A command whose output's reader is gone (`| head -1`) ends without a line, as other programs do.
    """
    # Without PyTorch, which most runs do not need, transformers says that models will not be available.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    collect_rarely()
    if in_worker():
        end_with_supervisor()
    debug = "--debug" in sys.argv
    try:
        with preemptible():
            _run(command, [argument for argument in sys.argv[1:] if argument != "--debug"])
    except SystemExit:
        raise
    except KeyboardInterrupt as e:  # Preempted is one
        _fail(str(e) or "interrupted; run the same command to go on", Preempted.exit_code, debug)
    except O1pError as e:
        _fail(str(e), e.exit_code, debug)
    except Exception as e:
        if isinstance(e, BrokenPipeError) and _nobody_reads():
            _say_nothing_more()
            leave(_NOBODY_READS)
        error = explained(e)
        _fail(str(error), error.exit_code, debug)
    ignore_stops()


def _run(command: Callable[[list[str]], Any], argv: list[str]) -> None:
    """Runs the command, and sees to it that what it printed is written now, not when the interpreter ends."""
    try:
        command(argv)
    except SystemExit:  # --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _fail(message: str, exit_code: int, debug: bool) -> None:
    ignore_stops()
    with suppress(BrokenPipeError):
        if debug:
            traceback.print_exc()
        print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    leave(exit_code)


def _nobody_reads() -> bool:
    """Returns whether stdout or stderr is a pipe whose reader is gone."""
    poll = select.poll()
    for file in (1, 2):
        poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _say_nothing_more() -> None:
    """Lets what is still to be written vanish: the interpreter writes it at its end, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for file in (1, 2):
        os.dup2(nowhere, file)
