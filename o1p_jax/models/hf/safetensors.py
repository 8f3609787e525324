"""Safetensors files, read and written a tensor or some of its rows at a time.

The safetensors library checks a file; but it maps the whole file into memory and writes only what is in memory at once,
and a process that loads or exports a large model has no room for either.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  (lets NumPy know bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from o1p_jax.runtime.errors import CorruptData

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Name of a floating type in the file -> its name in NumPy."""
_NAMES = {name: key for key, name in DTYPES.items()}
_BLOCK_BYTES = 4 * 2**20
"""How much of a tensor is looked at at a time."""


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    file: Path
    start: int
    """Where the tensor's bytes begin in the file."""
    dtype: str
    """The type as the file names it; a type that is no key of `DTYPES` can't be read."""
    shape: tuple[int, ...]

    @property
    def blocks(self) -> Iterator[slice]:
        """Rows of the first axis, some MiB at a time, that make up the tensor."""
        row = math.prod(self.shape[1:]) * np.dtype(DTYPES[self.dtype]).itemsize
        size = max(1, _BLOCK_BYTES // max(row, 1))
        return (slice(first, min(first + size, self.shape[0])) for first in range(0, self.shape[0], size))

    def read(self, rows: slice) -> np.ndarray:
        """Returns the rows from `rows.start` to `rows.stop` of the tensor's first axis.

        Raises `CorruptData` where the file is shorter than its header says.
        """
        out = np.empty((rows.stop - rows.start, *self.shape[1:]), DTYPES[self.dtype])
        left = out.reshape(-1).view(np.uint8).data
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start + rows.start * math.prod(self.shape[1:]) * out.itemsize)
            while left:
                count = file.readinto(left)  # the kernel hands out 2 GiB at most
                if not count:
                    raise CorruptData(f"{self.file}: shorter than its header says; fetch it again")
                left = left[count:]
        return out

    def equals(self, other: "StoredTensor") -> bool:
        """Returns whether both hold the same numbers, in whatever types; both are read up to the first difference."""
        if self.shape != other.shape or not {self.dtype, other.dtype} <= DTYPES.keys():
            return False
        return all(
            np.array_equal(self.read(rows).astype(np.float32), other.read(rows).astype(np.float32))
            for rows in self.blocks
        )


class TensorSpec(NamedTuple):
    """A tensor to be written."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors in a file, by name. Raises `CorruptData` where the library finds the file damaged."""
    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as e:
        raise CorruptData(f"{path}: not a whole safetensors file ({e}); fetch it again") from None
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(path, 8 + length + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def write_safetensors(path: Path, specs: Mapping[str, TensorSpec], make: Callable[[str], np.ndarray]) -> None:
    """Writes the tensors `specs`: `make(name)` is called for each in turn, and its array forgotten once it is written.

    The order and the header are those of the safetensors library: wide types first, then by name, padded to 8 bytes.
    """
    names = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, _NAMES[specs[name].dtype.name], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in names:
        spec = specs[name]
        end = start + spec.nbytes
        header[name] = {"dtype": _NAMES[spec.dtype.name], "shape": list(spec.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array = np.ascontiguousarray(make(name))
            assert array.shape == specs[name].shape and array.dtype == specs[name].dtype, name
            file.write(array.reshape(-1).view(np.uint8).data)
