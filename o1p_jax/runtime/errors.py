"""The failures that a user can act on, and the exit code that each of them ends a process with (BSD sysexits).

An error's message is one line that names the field or file and the remedy; `entry.main` prints the line on stderr.
"""

from typing import TypeVar

_E = TypeVar("_E", bound=BaseException)


class O1pError(Exception):
    """A failure that is reported in one line, without a traceback."""

    exit_code = 1


class BadInput(O1pError, ValueError):
    """A flag, config field, problem file or model can't be used as it is."""

    exit_code = 2


class CorruptData(O1pError):
    """A file that was written whole no longer reads back as it was written."""

    exit_code = 65


class SamplerGone(O1pError):
    """The sampling engine or server stopped answering."""

    exit_code = 69


class NonFinite(O1pError):
    """Loss or gradients stayed NaN or infinite for several steps."""

    exit_code = 70


class InternalError(O1pError):
    """A fault of this program; the message says where its trace lies."""

    exit_code = 70


class OutOfMemory(O1pError):
    """A device's memory, or the host's, did not suffice."""

    exit_code = 71


class DiskError(O1pError):
    """A file could not be written: disk full, quota, permission."""

    exit_code = 74


class ProcessLost(O1pError):
    """Another process of the job died; the same command goes on from what is saved."""

    exit_code = 75


class Preempted(KeyboardInterrupt):
    """SIGTERM or SIGINT asked the process to stop: the state was saved, and the same command goes on from it.

    As a KeyboardInterrupt the stop passes through every `except Exception`, in libraries too.
    """

    exit_code = 75


def wrapped(error: BaseException, *kinds: type[_E]) -> _E | None:
    """Returns the first exception of these kinds that `error` is, or that `error` was raised from or in place of."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
