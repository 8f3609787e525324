"""Files that are written whole or not at all, and disk failures told from other failures."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from o1p_jax.runtime.errors import BadInput, CorruptData, DiskError

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


@contextmanager
def disk_errors(what: str | Path) -> Iterator[None]:
    """The block's refusals by the operating system to write `what` are raised as `DiskError`."""
    try:
        yield
    except OSError as e:
        if e.errno not in _DISK_ERRNOS:
            raise
        raise DiskError(f"{what}: {os.strerror(e.errno)}; free or grant space there and run the command again") from e


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what the block writes there replaces `path` when the block ends well.

    The content is on disk before the name changes, so that a kill or a power cut leaves the old file or the new one.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(fd)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which replaces `path` when the block ends well."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    _fsync(file)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; a missing file is the user's mistake, a broken one is damage."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise CorruptData(f"{path}: not valid JSON ({e}); restore or remove the file") from None


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of the bytes of a file that is in memory, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of the file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def public_path(name: str) -> str:
    """Returns a name for what is passed on, which should tell nothing of this machine.

    Of a path, also of one in FOLDER:SPLIT or to a file of rows that is not there any more, the last part is left; other
    names (of the hub, of embedded sets) stay as they are.
    """
    local = name.startswith(("/", "~", ".")) or name.endswith((".jsonl", ".parquet"))
    folder = name.rpartition(":")[0] or name
    return Path(name).name if local or Path(name).exists() or Path(folder).exists() else name
