"""Training states on disk are written by Orbax, and a manifest of SHA-256 sums proves them whole.

    checkpoints/00000050/params ...      Orbax: the trained parameters (any later mesh can read them)
    checkpoints/00000050/optimizer ...   Orbax: moments and counters
    checkpoints/00000050/facts.json      configuration and fingerprints
    checkpoints/00000050/manifest.json   file -> SHA-256, written last: without it the checkpoint isn't finished

Orbax loads a checkpoint with a flipped bit without a word; so the sums are checked before every restore, and a
damaged newest checkpoint gives way to the one before.
"""

import hashlib
import itertools
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from o1p_jax.devices import processes
from o1p_jax.runtime import files, progress
from o1p_jax.runtime.errors import CorruptData, DiskError, Preempted
from o1p_jax.runtime.signals import stop_signals
from o1p_jax.runtime.sums import sum_of

MANIFEST = "manifest.json"
FACTS = "facts.json"
_BLOCK_BYTES = 256 * 2**20


class Writer:
    """Writes checkpoints below `root` while the training goes on, one at a time.

    A checkpoint counts once its manifest is there. Leaving the context waits for the last one. The host holds the
    arrays of one checkpoint, until they are written.
    """

    def __init__(self, root: Path, keep: int):
        """All but the newest `keep` checkpoints are removed whenever one is finished."""
        self._root, self._keep = root, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as e:
            if kind is None:
                raise
            progress.say(str(e))  # beside the error that ends the run
        finally:
            self._thread.shutdown()

    def save(self, step: int, parts: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
        """Begins to write the checkpoint `root`/STEP, which the function returns, after waiting for the one before.

        `parts` are trees of arrays, which may be donated afterwards; `facts` what the run depends on. Each process of
        the job writes the parts of arrays that its devices hold. Later checkpoints, which were passed over as damaged,
        are set aside as STEP.damaged.
        """
        self.wait()
        folder = self._root / f"{step:08d}"
        with _failures_told(folder):
            # Orbax returns once the arrays are on the host: copied from accelerators. On CPUs it looks at the arrays
            # themselves, and JAX does not write to a donated one that is looked at.
            arrays = ocp.save_checkpointables_async(folder.absolute(), dict(parts), overwrite=True)
        self._writing = self._thread.submit(self._finish, folder, arrays, facts)
        return folder

    def wait(self) -> None:
        """Waits until the checkpoint that is being written is whole.

        A full disk raises `DiskError`; older checkpoints are intact then.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _finish(self, folder: Path, arrays: Any, facts: Mapping[str, Any]) -> None:
        with _failures_told(folder):
            arrays.result()
            processes.once(lambda: files.write_json(folder / FACTS, dict(facts)))
            sums = _sums(folder)
            processes.once(lambda: files.write_json(folder / MANIFEST, sums))
        processes.once(lambda: _tidy(self._root, folder, self._keep))


def _tidy(root: Path, folder: Path, keep: int) -> None:
    """Removes and sets aside, for `Writer`, checkpoints other than the new one, `folder`."""
    for later in steps(root):
        if later > folder:
            later.rename(_aside(later))
    for old in steps(root)[:-keep]:
        _remove(old)
    killed = [f for f in _numbered(root) if not _finished(f)]
    for leftover in [*killed, *root.glob("*.orbax-checkpoint-tmp*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _aside(folder: Path) -> Path:
    """Returns a name that is free for the damaged checkpoint `folder`: a step can be damaged more than once."""
    names = (folder.with_name(f"{folder.name}.damaged{n}") for n in itertools.chain([""], itertools.count(2)))
    return next(path for path in names if not path.exists())


def restore(folder: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checkpoint's `parts`, laid out as the given arrays or `ShapeDtypeStruct`s, whatever mesh wrote them.

    `folder` is a checkpoint that `newest` or `damage` found whole. A stop that comes meanwhile is raised at the end, as
    `Preempted`.
    """

    def wanted(x: Any) -> Any:
        is_array = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) if is_array else x

    with stop_signals() as stopped:  # Orbax takes an exception that comes while it reads for damage, and may go on
        restored = ocp.load_checkpointables(folder.absolute(), jax.tree.map(wanted, dict(parts)))
    if stopped:
        raise Preempted(f"{folder}: stopped by {stopped[0]} while it was read; run the same command to go on")
    return restored


def newest(root: Path) -> Path | None:
    """Returns the newest whole checkpoint, or None where none was finished; says which checkpoints were passed over.

    Raises `CorruptData` where the finished checkpoints are all damaged.
    """
    damaged = False
    names = processes.once(lambda: [folder.name for folder in _numbered(root)])
    for folder in [root / name for name in reversed(names)]:
        fault = damage(folder)
        if not fault:
            return folder
        damaged |= _finished(folder)
        progress.say(f"{folder}: {fault}; passing over this checkpoint")
    if damaged:
        raise CorruptData(f"{root}: every checkpoint is damaged; remove the folder to train from the start")
    return None


def steps(root: Path) -> list[Path]:
    """Returns the folders of the finished checkpoints, oldest first."""
    return [folder for folder in _numbered(root) if _finished(folder)]


def facts_of(folder: Path) -> dict[str, Any]:
    """Reads the facts of a checkpoint: what the run that wrote it depends on. Raises `CorruptData` where damaged."""
    sums = _manifest(folder)
    if isinstance(sums, str) or sums.get(FACTS) != sum_of(folder / FACTS):
        raise CorruptData(f"{folder / FACTS}: not as it was written; remove {folder}, whose step is trained again")
    return files.read_object(folder / FACTS)


def newest_facts(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Returns the newest finished checkpoint whose facts are whole, and its facts; None where there is none."""
    for folder in reversed(steps(root)):
        with suppress(CorruptData, OSError):
            return folder, facts_of(folder)
    return None


def damage(folder: Path) -> str | None:
    """Returns what is wrong with the checkpoint's files, or None. Each process of the job reads a share of them."""
    expected = processes.once(lambda: _manifest(folder))
    if isinstance(expected, str):
        return expected
    found = _sums(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if expected.get(name) != found[name]:
            return f"{name} is damaged"
    return None


def _manifest(folder: Path) -> dict[str, str] | str:
    """Returns the checkpoint's sums by file, or what is wrong with their list."""
    try:
        sums = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return "not a finished checkpoint (no manifest.json)"
    except (ValueError, RecursionError, IsADirectoryError):
        return f"{MANIFEST} is damaged"
    whole = isinstance(sums, dict) and all(isinstance(value, str) for value in sums.values())
    return sums if whole else f"{MANIFEST} is damaged"


def state_digest(state: Any) -> str:
    """Returns the SHA-256 over every leaf's path, type, shape and bytes, whatever mesh the state lies on."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        for part in _blocks(leaf):
            array = processes.whole(part)
            digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _blocks(leaf: Any) -> Iterator[Any]:
    """Yields the leaf; where other processes hold parts of it, in blocks of its first axis that a host has room for."""
    if leaf.ndim == 0 or leaf.is_fully_addressable:
        yield leaf
        return
    size = max(1, _BLOCK_BYTES * len(leaf) // max(leaf.nbytes, 1))
    for start in range(0, len(leaf), size):
        yield jax.lax.slice_in_dim(leaf, start, min(start + size, len(leaf)))


def _numbered(root: Path) -> list[Path]:
    return sorted(f for f in root.glob("*") if re.fullmatch(r"\d{8}", f.name))


def _finished(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def _sums(folder: Path) -> dict[str, str]:
    def names() -> list[str]:
        found = sorted(f for f in folder.rglob("*") if f.is_file() and f != folder / MANIFEST)
        return [f.relative_to(folder).as_posix() for f in found]

    return processes.share(processes.once(names), lambda name: files.sha256_file(folder / name))


def _remove(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first, so that a half-removed one counts as unfinished
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _failures_told(folder: Path) -> Iterator[None]:
    """Removes the unfinished `folder` on a failure. Raises `DiskError` for a full disk, which Orbax reports as text.

    Orbax's threads are kept from logging the traces of what is raised here anyway.
    """
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with files.disk_errors(folder):
            yield
    except Exception as e:
        if not _finished(folder):
            _remove(folder)
        for partial in folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp*"):
            shutil.rmtree(partial, ignore_errors=True)
        text = str(e)
        for sign in ("No space left on device", "Disk quota exceeded", "File too large"):
            if sign in text and not isinstance(e, DiskError):
                raise DiskError(f"{folder}: {sign.lower()}; free space there and run the command again") from e
        raise
    log.setLevel(level)  # not after a failure: Orbax's other threads may tell of it a moment later
