"""SHA-256 sums of large files are computed once for each state of a file and kept in the user's cache folder."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from o1p_jax.runtime.files import sha256_file, user_cache, write_json


def state(path: Path) -> list:
    """Returns what tells a file's states apart without reading the file: path, size, time of change (ns) and inode."""
    real = path.resolve()
    stat = real.stat()
    return [str(real), stat.st_size, stat.st_mtime_ns, stat.st_ino]


def kept_sha256(path: Path) -> str:
    """Returns the SHA-256 of the file's bytes, in hex; the file is read again only when its state has changed."""
    now = _own_state(path)
    kept = user_cache() / "digests" / f"{hashlib.sha256(now[0].encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(kept.read_text())
        if found["state"] == now:
            return found["sha256"]
    digest = sha256_file(path)
    if _own_state(path) == now:  # else it was being written: nothing to keep
        with suppress(Exception):  # a cache that can't be written costs time only
            write_json(kept, {"state": now, "sha256": digest})
    return digest


def _own_state(path: Path) -> list:
    """Returns the file's state, with the time (ns) of its last change of any kind, which nobody can set."""
    return [*state(path), path.stat().st_ctime_ns]
