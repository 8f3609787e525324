"""Writing a safetensors file one tensor at a time, so that no process holds a whole file's tensors in memory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Name of a floating type in the file -> in NumPy."""
_NAMES = {name: key for key, name in DTYPES.items()}


class TensorSpec(NamedTuple):
    """A tensor to be written."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def write_safetensors(path: Path, specs: Mapping[str, TensorSpec], make: Callable[[str], np.ndarray]) -> None:
    """Writes the tensors `specs`; `make(name)` is called for each in turn and its array forgotten once written.

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
