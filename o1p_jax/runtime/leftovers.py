"""What killed processes left behind is removed by a later start: half-written files and folders, and claims."""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from o1p_jax.runtime import owner
from o1p_jax.runtime.claims import CLAIM, SHARD, Claim
from o1p_jax.runtime.progress import say

_TEMPORARY = re.compile(rf"\..+\.({owner.PATTERN})(\.\w+)?")
"""The name of a file or folder that is being written (`files.atomic_path`), or of a claim that is being taken away."""
_OLD_S = 24 * 3600.0
"""No process takes so long to write a file, however the clocks of two machines may differ."""


def hidden_below(folder: Path) -> Iterator[Path]:
    """Yields the files and folders in `folder`, and in all folders below it, whose names begin with a dot."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.startswith("."):
                yield Path(place) / name
        folders[:] = [name for name in folders if not name.startswith(".")]


def remove_leftovers(paths: Iterable[Path], *, owned: bool = False) -> None:
    """Removes those of the `paths` that a killed process left, and none that a live process writes.

    Whether another machine's process lives is not known: what it was writing is removed once it is a day old, or where
    the caller owns the folder (`owned`), so that nobody else can be writing there.
    """
    removed = [path for path in list(paths) if _remove_claim(path) or _remove_half_written(path, owned)]
    if removed:
        more = f" and {len(removed) - 1} more" if len(removed) > 1 else ""
        say(f"{removed[0]}{more}: left by a killed process, and removed")


def _remove_claim(path: Path) -> bool:
    """Removes the claim `path` if its shard is made, or its owner lost; returns whether it did."""
    if not path.name.endswith(CLAIM):
        return False
    if path.with_name(path.name.removeprefix(".").removesuffix(CLAIM) + SHARD).exists():
        path.unlink(missing_ok=True)
        return True
    return Claim(path).lost()


def _remove_half_written(path: Path, owned: bool) -> bool:
    match = _TEMPORARY.fullmatch(path.name)
    lives = True if match is None else owner.alive(match[1])
    if lives or (lives is None and not owned and not _is_old(path)):
        return False
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD_S
    except OSError:
        return False
