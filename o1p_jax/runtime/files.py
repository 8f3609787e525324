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

from o1p_jax.runtime import owner
from o1p_jax.runtime.errors import BadInput, CorruptData, DiskError, O1pError

_RIGHTS_ERRNOS = {errno.EROFS, errno.EACCES, errno.EPERM}
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_NAME_ERRNOS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST}


def user_cache() -> Path:
    """Returns this program's folder in the user's cache: what lies there only saves time, and may be removed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "o1p_jax"


@contextmanager
def disk_errors(what: str | Path) -> Iterator[None]:
    """The block's refusals by the operating system to write `what` are raised as `refusal` has them."""
    try:
        yield
    except OSError as e:
        if (refused := refusal(e, what)) is None:
            raise
        raise refused from e


def refusal(e: OSError, what: str | Path) -> O1pError | None:
    """Returns the error for a file or folder `what` that the operating system refused by `e`.

    It is a `DiskError` for space and rights, `BadInput` for a name that can't be one; None stands for other reasons.
    """
    reason = os.strerror(e.errno or 0)
    if e.errno in _RIGHTS_ERRNOS:
        return DiskError(f"{what}: {reason}; grant access to it and run the command again")
    if e.errno in _DISK_ERRNOS:
        return DiskError(f"{what}: {reason}; free or grant space there and run the command again")
    if e.errno in _NAME_ERRNOS:
        return BadInput(f"{what}: {reason}; name another file or folder")
    return None


def check_folder(flag: str, path: Path) -> None:
    """Raises BadInput where `path`, named by `flag`, neither is a folder that can be read nor can become one."""
    try:
        os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as e:
        reason = os.strerror(e.errno or 0)
        raise BadInput(f"{flag}={path}: {reason}; name another folder, or grant access to it") from None


def fsync(path: Path) -> None:
    """Waits until the file or folder is on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _prefix(path: Path) -> str:
    """Returns how the name of a temporary file for `path` begins: it says whose it is (see `leftovers`)."""
    return f".{path.name}.{owner.this_process()}."


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what the block writes there replaces `path` when the block ends well.

    The content is on disk before the name changes, so that a kill or a power cut leaves the old file or the new one.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
        os.close(fd)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which replaces `path` when the block ends well."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
        try:
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    fsync(file)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def copy_or_link(source: Path, target: Path) -> None:
    """Makes the file `target` with the contents of `source`: the same file by another name, where the disk can do that.

    Neither file may be written to afterwards; this program replaces files.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_with_sum(path: Path, data: bytes | str) -> None:
    """Writes `data` to `path` and, before it, its SHA-256 to `sum_path`, in the form that `sha256sum -c` reads."""
    data = data.encode() if isinstance(data, str) else data
    write_atomic(sum_path(path), f"{sha256_bytes(data)}  {path.name}\n")
    write_atomic(path, data)  # last: its name says that all is there


def sum_path(path: Path) -> Path:
    """Returns the path of the file that holds the SHA-256 of the file `path`.

    Programs that read a folder of Parquet files pass over names that begin with `_` and hold no `.parquet`.
    """
    return path.with_name(f"_{path.stem}.sha256")


def read_summed(path: Path) -> bytes:
    """Returns the bytes of a file that `write_with_sum` wrote.

    Raises FileNotFoundError where there is no such file, CorruptData where it does not read back as it was written, or
    its sum is gone.
    """
    remedy = "remove the file and run the stage that makes it again"
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise CorruptData(f"{path}: a folder lies where a file was written; remove it") from None
    try:
        expected = sum_path(path).read_bytes().split()[:1]
    except (FileNotFoundError, IsADirectoryError):
        raise CorruptData(f"{path}: can't be checked, because {sum_path(path).name} is gone; {remedy}") from None
    if expected != [sha256_bytes(data).encode()]:
        raise CorruptData(f"{path}: not as it was written; {remedy}")
    return data


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_atomic(path, _json_text(value))


def write_json_with_sum(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, with its SHA-256 beside it (see `write_with_sum`)."""
    write_with_sum(path, _json_text(value))


def read_summed_json(path: Path) -> Any:
    """Returns the value that `write_json_with_sum` wrote; errors as `read_summed`."""
    return json.loads(read_summed(path))


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The JSON value in `path`; a missing file is the user's mistake, a broken one is damage."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CorruptData(f"{path}: a folder where a file belongs; restore or remove it") from None
    except (ValueError, RecursionError) as e:
        raise CorruptData(f"{path}: not valid JSON ({e}); restore or remove the file") from None


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in `path`; errors as `read_json`, and `CorruptData` for another JSON value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CorruptData(f"{path}: not a JSON object; restore or remove the file")
    return value


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of the bytes of a file that is in memory, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of the file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def is_unicode(text: str) -> bool:
    """Returns whether `text` can be written as UTF-8: half of a surrogate pair, which JSON allows, can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def public_path(name: str) -> str:
    """Returns a name for what is passed on, which should tell nothing of this machine.

    Of a path, also of one in FOLDER:SPLIT or to a file of rows that is not there any more, the last part is left; other
    names (of the hub, of embedded sets) stay as they are.
    """
    local = name.startswith(("/", "~", ".")) or name.endswith((".jsonl", ".parquet"))
    folder = name.rpartition(":")[0] or name
    return Path(name).name if local or Path(name).exists() or Path(folder).exists() else name
