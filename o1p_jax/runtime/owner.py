"""A process is told apart from all others, on any machine, by a short text that it leaves in the files it writes.

    MACHINE-PROCESS-START     such as 3f9c01d2ab47-4711-8812345

MACHINE stands for one start of one machine and one numbering of its processes, since hosts may share a name, containers
count from 1, and numbers come again; START is when the process began, in clock ticks since the machine's start.
"""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

PATTERN = r"[0-9a-f]{12}-\d+-\d+"
_NO_PROC = 0


def this_process() -> str:
    """Returns the text that tells this process apart."""
    return f"{_machine()}-{os.getpid()}-{_start(os.getpid()) or _NO_PROC}"


def alive(process: str) -> bool | None:
    """Returns whether the process with this text runs; None where it can't be told, as for another machine's."""
    if not re.fullmatch(PATTERN, process):
        return None
    machine, number, start = process.split("-")
    if machine != _machine() or int(start) == _NO_PROC:
        return None
    found = _start(int(number))
    return None if found is None and _hidden(int(number)) else found == int(start)


@lru_cache
def _machine() -> str:
    parts = []
    for read in (_boot_id, _process_numbering):
        try:
            parts.append(read())
        except OSError:  # not Linux: the process's start can't be read either, and nothing is told of it
            parts.append("")
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()


def _process_numbering() -> str:
    return os.readlink("/proc/self/ns/pid")


def _start(number: int) -> int | None:
    """Returns when the process with this number began; None where there is none, or it ended and was not waited for."""
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if state in "ZX" else int(fields[18])


def _hidden(number: int) -> bool:
    """Returns whether the process is there all the same: some machines show users their own processes only."""
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
