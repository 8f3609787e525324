"""A folder that is written to lies apart from the folders that are only read, by whatever names they are reached."""

import os
from pathlib import Path

from o1p_jax.runtime.errors import BadInput


def check_apart(flag: str, path: Path | str, source: Path, what: str) -> None:
    """Raises BadInput where the folder `path`, named by `flag`, is the folder `source`, or lies above or below it.

    The same holds for the files that links in `source` lead to: `path` must not hold them. `what` tells a user what
    `source` is. Symbolic links, relative names and mounts of one folder at two places are seen through.
    """
    links = [file for file in source.iterdir() if file.is_symlink()] if source.is_dir() else []
    if _within(path, source) or any(_within(read, path) for read in (source, *links)):
        raise BadInput(
            f"{flag}={path}: is, holds or lies in {what} ({source}), which is only read; name another folder"
        )


def _within(path: Path | str, folder: Path | str) -> bool:
    """Returns whether `path` is `folder` or lies in it."""
    real = Path(os.path.realpath(path))
    return any(_same(parent, folder) for parent in (real, *real.parents))


def _same(a: Path, b: Path | str) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there yet
        return a == Path(os.path.realpath(b))
