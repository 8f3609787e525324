"""Any number of processes, on any hosts, share work out among themselves with nothing but files between them.

A claim is a file, which only one process can make; its owner keeps the file fresh while it lives and makes progress,
and the claims of a lost owner are taken over by the others. On one machine a lost owner is known at once. Elsewhere it
is one whose claim another process has seen unchanged for two minutes by its own clock: the clocks of two hosts are
never compared.

Claims on shards save work and guard nothing: should two processes make the same shard all the same, they write rows of
the same seeds, whole or not at all. The owner of a run's folder (`sole_owner`) looks whether the claim is still its own
before it writes what another owner could spoil.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from o1p_jax.runtime import owner, progress
from o1p_jax.runtime.errors import ProcessLost
from o1p_jax.runtime.files import disk_errors
from o1p_jax.runtime.progress import say

CLAIM = ".claim"
"""How the names of claims end."""
SHARD = ".parquet"
"""How the names of shards' files end."""
_BEAT_S = 10.0
_STALE_S = 120.0  # file systems of many hosts show a file's time up to a minute late
_STALLED_S = 3600.0
"""An owner that has shown no progress for so long gives its claims up. A solution may take many minutes."""
_LOOK_S = 2.0


class Shards(Protocol):
    """A folder that is filled shard by shard, each shard whole or not at all."""

    path: Path

    def missing_shards(self) -> list[int]:
        """The numbers of the shards that are not there yet."""

    def shard_path(self, index: int) -> Path:
        """The path of a shard's file."""


class Share:
    """What this process makes of a folder's missing shards, as a context, at whose end all its claims are given up.

    `by_others` is called with each shard that another process has finished meanwhile.
    """

    def __init__(self, folder: Shards, by_others: Callable[[int], None]):
        self._folder, self._by_others = folder, by_others
        self._left = set(folder.missing_shards())
        self._claims = {shard: Claim(_path(folder.shard_path(shard))) for shard in self._left}
        self._own: dict[int, ExitStack] = {}
        self._next_look = 0.0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        for shard in list(self._own):
            self.give_up(shard)

    def claim(self) -> int | None:
        """Claims the first shard that is missing and free, and returns its number; None where none is free now.

        Where none was free, the folder is looked at again after a while.
        """
        if self._left == self._own.keys() or time.monotonic() < self._next_look:
            return None
        there = self._left - self._own.keys() - set(self._folder.missing_shards())
        for shard in sorted(there):
            self._by_others(shard)
        self._left -= there
        for shard in sorted(self._left - self._own.keys()):
            if self._claims[shard].taken():
                self._own[shard] = ExitStack()
                self._own[shard].enter_context(self._claims[shard].kept())
                if not self._folder.shard_path(shard).exists():
                    return shard
                self.give_up(shard)
        self._next_look = time.monotonic() + _LOOK_S
        return None

    def wait(self) -> int | None:
        """Claims a shard as `claim` does, and waits for it while others have claimed all that is missing.

        Returns None where nothing is missing but what this process has claimed already.
        """
        waiting = False
        while (shard := self.claim()) is None and (others := len(self._left) - len(self._own)):
            if not waiting:
                say(
                    f"{self._folder.path}: the last {others} shards are being made by other processes; waiting for them"
                )
            waiting = True
            time.sleep(_LOOK_S)
        return shard

    def finish(self, shard: int) -> None:
        """Says that a claimed shard is written now."""
        self._left.remove(shard)
        self.give_up(shard)

    def give_up(self, shard: int) -> None:
        """Leaves a claimed shard to others."""
        self._own.pop(shard).close()


def shards_to_make(folder: Shards, by_others: Callable[[int], None]) -> Generator[int, None, None]:
    """Claims and yields one missing shard after the other, until the folder is complete.

    Where other processes have claimed all that is missing, the generator waits for them; see `Share`.
    """
    with Share(folder, by_others) as share:
        while (shard := share.wait()) is not None:
            yield shard
            share.finish(shard)


def _path(path: Path) -> Path:
    """Returns the path of the claim on the file or folder `path`."""
    return path.with_name(f".{path.name.removesuffix(SHARD)}{CLAIM}")


@contextmanager
def sole_owner(folder: Path, what: str) -> Iterator["Claim"]:
    """Waits until no other process owns `folder`, and makes this process its owner inside the block.

    `what` says to people what an owner does.
    """
    claim = Claim(folder / f".owner{CLAIM}")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = False
    while not claim.taken():
        if not waiting:
            say(f"{folder}: {claim.by_whom()} {what} there; waiting for it")
            waiting = True
        time.sleep(_LOOK_S)
    with claim.kept():
        yield claim


class Claim:
    """The claim in the file `path`, which this process may make, and watches while it is another's."""

    def __init__(self, path: Path):
        self.path = path
        self._text = ""
        self._seen: tuple[Any, float] = (None, 0.0)
        """The state in which another's claim was first seen, and when that was by this process's clock."""

    def taken(self) -> bool:
        """Makes the claim, if it is free or its owner is lost; returns whether it is this process's now."""
        return self._make() or (self.lost() and self._make())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps the claim fresh inside the block, and gives it up at the end."""
        ended = threading.Event()
        beat = threading.Thread(target=self._keep_fresh, args=(ended,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            if self._is_own():
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises `ProcessLost` where another process has taken this process's claim over."""
        if not self._is_own():
            raise ProcessLost(
                f"{self.path.parent}: {self.by_whom()} has taken it over, because this process stood still for long; "
                "what is saved stays"
            )

    def by_whom(self) -> str:
        """Returns, in words, whose the claim is."""
        owned_by = _read(self.path)
        return f"process {owned_by.get('process', '?')} on {owned_by.get('host', 'another host')}"

    def _make(self) -> bool:
        text = json.dumps(
            {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "owner": owner.this_process(),
                "token": secrets.token_hex(8),
            }
        )
        with disk_errors(self.path):
            try:
                with self.path.open("x") as file:
                    file.write(text)
            except FileExistsError:
                return False
        self._text = text
        return True

    def _is_own(self) -> bool:
        try:
            return self.path.read_text() == self._text
        except FileNotFoundError:
            return False
        except OSError:  # a network's file system: it will say later
            return True

    def _keep_fresh(self, ended: threading.Event) -> None:
        """Touches the claim's file until the event `ended`, or this process stands still; runs in a thread."""
        began = time.monotonic()
        while not ended.wait(_BEAT_S):
            if time.monotonic() - max(began, progress.last_advance) > _STALLED_S or not self._is_own():
                continue
            with suppress(OSError):
                os.utime(self.path)

    def lost(self) -> bool:
        """Returns whether the claim is free now, removing it if its owner is lost: dead, or silent for long."""
        try:
            state = self._state(self.path)
        except FileNotFoundError:  # given up just now
            return True
        except OSError:
            return False
        lives = owner.alive(str(_read(self.path).get("owner")))
        now = time.monotonic()
        if state != self._seen[0]:
            self._seen = state, now
        silent = now - self._seen[1] > _STALE_S
        return (lives is False or silent) and self._removed(state)

    def _removed(self, state: Any) -> bool:
        """Removes the claim if it is still in this state: another process may have taken it over."""
        aside = self.path.with_name(f"{self.path.name}.{owner.this_process()}")
        try:
            self.path.rename(aside)
            unchanged = self._state(aside) == state
            if not unchanged:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()
        except OSError:
            return False
        return unchanged

    @staticmethod
    def _state(path: Path) -> tuple[int, bytes]:
        return path.stat().st_mtime_ns, path.read_bytes()


def _read(path: Path) -> dict[str, Any]:
    """Returns what stands in a claim; nothing where it can't be read, is being written, or was cut off."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
