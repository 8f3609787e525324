"""Any number of processes, on any hosts, fill one folder shard by shard, with nothing but files between them.

A claim is a file beside the shard, which only one process can make; its owner keeps the file fresh while it lives, and
the claims of a lost owner are taken over by the others. Should two processes make the same shard all the same (a clock
or a file system at fault), they write rows of the same seeds, whole or not at all: claims save work, they guard
nothing.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from o1p_jax.runtime.files import disk_errors
from o1p_jax.runtime.progress import say

_BEAT_S = 10.0
_STALE_S = 120.0  # file systems of many hosts show a file's time up to a minute late
_LOOK_S = 2.0


class Shards(Protocol):
    """A folder that is filled shard by shard, each shard whole or not at all."""

    path: Path

    def missing_shards(self) -> list[int]:
        """The numbers of the shards that are not there yet."""

    def shard_path(self, index: int) -> Path:
        """The path of a shard's file."""


def shards_to_make(folder: Shards, by_others: Callable[[int], None]) -> Generator[int, None, None]:
    """Claims and yields one missing shard after the other, until the folder is complete.

    Where other processes have claimed all that is missing, the generator waits for them. `by_others` is called with
    each shard that another process finished meanwhile.
    """
    left, waiting = set(folder.missing_shards()), False
    while left:
        there = left - set(folder.missing_shards())
        for shard in sorted(there):
            by_others(shard)
        left -= there
        if not left:
            return
        for shard in sorted(left):
            with _claim(_path(folder, shard)) as made:
                if made and not folder.shard_path(shard).exists():
                    yield shard
                    left.remove(shard)
            if made:
                break
        else:
            if not waiting:
                say(f"{folder.path}: the last {len(left)} shards are being made by other processes; waiting for them")
            waiting = True
            time.sleep(_LOOK_S)


def _path(folder: Shards, shard: int) -> Path:
    """The path of a shard's claim."""
    return folder.path / f".{folder.shard_path(shard).stem}.claim"


@contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Yields whether the claim could be made; the claim is given up at the end of the block."""
    if not _make(path) and not (_lost(path) and _make(path)):
        yield False
        return
    ended = threading.Event()
    beat = threading.Thread(target=_keep_fresh, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        ended.set()
        beat.join()
        path.unlink(missing_ok=True)


def _make(path: Path) -> bool:
    """Makes the claim, and returns False where another process holds it."""
    with disk_errors(path):
        try:
            with path.open("x") as file:
                json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        except FileExistsError:
            return False
    return True


def _keep_fresh(path: Path, ended: threading.Event) -> None:
    """Touches the claim's file until the event `ended`; runs in a thread."""
    while not ended.wait(_BEAT_S):
        try:
            os.utime(path)
        except FileNotFoundError:  # taken away: the worst of it is a shard made twice
            return
        except OSError:
            continue


def _lost(path: Path) -> bool:
    """Returns whether the claim is free now, removing it if its owner is gone (dead on this host, or silent)."""
    try:
        then = path.stat().st_mtime
        text = path.read_text()
    except FileNotFoundError:  # given up just now
        return True
    except OSError:  # a network's file system, about the same
        return False
    try:
        owner = json.loads(text)
    except ValueError:  # being written, or its owner was lost then
        owner = {}
    # A container that was started again has its processes' numbers again, this one's too.
    on_this_host = owner.get("host") == socket.gethostname()
    gone = on_this_host and (owner["process"] == os.getpid() or not _alive(owner["process"]))
    gone = gone or _file_system_time(path.parent) - then > _STALE_S
    return gone and _removed(path, then)


def _removed(path: Path, then: float) -> bool:
    """Removes the claim if it is still the one with the time `then`: another process may have taken it over."""
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        path.rename(aside)
        unchanged = aside.stat().st_mtime == then
        if not unchanged:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
    except OSError:
        return False
    return unchanged


def _alive(process: int) -> bool:
    """Returns whether the process with this number runs on this host."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a child that ended and was not waited for yet is still listed
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return True


def _file_system_time(folder: Path) -> float:
    """The time by the clock that stamps the folder's files, because hosts' own clocks differ."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    with disk_errors(probe):
        probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
