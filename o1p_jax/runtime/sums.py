"""A folder that is handed on lists what the program wrote into it: each file's SHA-256, as `sha256sum -c` reads it.

The list tells a file that is no longer as it was written, and the program's own files from those that somebody else put
beside them.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from o1p_jax.runtime import owner
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import disk_errors, fsync, sha256_file, write_atomic
from o1p_jax.runtime.leftovers import remove_leftovers

SUMS = "o1p_jax.sha256"
"""The list's name in its folder."""
_HEAD = "# files written by o1p_jax; SHA-256 of the lines below: "
_PART = ".unfinished."


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Writes the folder's list: file name -> SHA-256 in hex."""
    write_atomic(folder / SUMS, _text(sums))


def read_sums(folder: Path) -> dict[str, str]:
    """Returns the folder's list, which is empty where the folder has none. Raises CorruptData for a damaged list."""
    try:
        head, _, lines = (folder / SUMS).read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, IsADirectoryError):
        head = lines = ""
    if not lines or head != f"{_HEAD}{_sha256(lines)}":
        raise CorruptData(f"{folder / SUMS}: not as it was written; {remedy(folder)}")
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (.+)$", lines, re.MULTILINE)}


def sum_of(path: Path) -> str | None:
    """Returns the SHA-256 of the file, in hex; None where there is no such file."""
    return sha256_file(path) if path.is_file() else None


def check_sums(folder: Path, found: Mapping[str, str | None]) -> None:
    """Compares `found`, file name -> SHA-256 or None for a missing file, with the folder's list.

    Raises CorruptData that names the first listed file which is not as it was written. Files that are not listed are
    nobody's concern.
    """
    listed = read_sums(folder)
    for name in sorted(found.keys() & listed.keys()):
        if found[name] != listed[name]:
            what = "is missing" if found[name] is None else "is not as it was written"
            raise CorruptData(f"{folder / name}: {what} (by {SUMS} beside it); {remedy(folder)}")


def remedy(folder: Path) -> str:
    """Returns what a user can do about a damaged folder."""
    return (
        f"remove {folder} and run the command that wrote it again (o1p train exports a run's model/ again from "
        f"its checkpoint), or, where the files were changed on purpose, remove {SUMS} there"
    )


def damaged(folder: Path) -> list[str]:
    """Returns the listed files that are not as they were written. Raises CorruptData for a damaged list."""
    return [name for name, digest in read_sums(folder).items() if sum_of(folder / name) != digest]


def update_sums(folder: Path, name: str) -> None:
    """Lists the file `name` as it is, where the folder has a list."""
    listed = read_sums(folder)
    if listed and listed.get(name) != (found := sha256_file(folder / name)):
        write_sums(folder, listed | {name: found})


@contextmanager
def filled(folder: Path, last: str) -> Iterator[Path]:
    """Yields a temporary folder, whose files are moved into `folder` and listed there when the block ends well.

    Of what lies in `folder`, only files that an earlier call wrote are replaced or removed. The file `last` goes first
    and comes last: without it, `folder` is not whole. Raises BadInput where a file of somebody else is in the way.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.glob(f"{_PART}*"))
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_PART}{owner.this_process()}."))
        try:
            yield temporary
            _move(temporary, folder, last)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def is_empty(folder: Path) -> bool:
    """Returns whether `folder` holds nothing but what a killed `filled` left there."""
    return folder.is_dir() and all(file.name.startswith(_PART) for file in folder.iterdir())


def _move(temporary: Path, folder: Path, last: str) -> None:
    sums = {file.name: sha256_file(file) for file in temporary.iterdir()}
    old = read_sums(folder)
    for name in sorted(sums):
        there = folder / name
        if there.is_dir() or (name not in old and os.path.lexists(there)):
            raise BadInput(
                f"{there}: was not written by this program and would be replaced; move it away, or name another folder"
            )
    for file in temporary.iterdir():
        fsync(file)

    def write_list(sums: Mapping[str, str]) -> None:
        (temporary / SUMS).write_text(_text(sums))
        fsync(temporary / SUMS)
        (temporary / SUMS).replace(folder / SUMS)

    (folder / last).unlink(missing_ok=True)
    write_list(old | sums)  # after a kill all of them are known as the program's own
    for name in old.keys() - sums.keys():
        (folder / name).unlink(missing_ok=True)
    for name in sorted(sums.keys() - {last}):
        (temporary / name).replace(folder / name)
    write_list(sums)
    (temporary / last).replace(folder / last)
    fsync(folder)


def _text(sums: Mapping[str, str]) -> str:
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return f"{_HEAD}{_sha256(lines)}\n{lines}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
