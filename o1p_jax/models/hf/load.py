"""Weights are read from a Hugging Face folder into each device's shards.

A host reads each tensor once, and of it only the rows that its devices need. While a tensor finds its places, a thread
reads the next one.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.folder import FolderTensors
from o1p_jax.models.hf.names import HfTensor, Part, hf_tensors
from o1p_jax.models.hf.safetensors import StoredTensor
from o1p_jax.runtime import progress


def load_params(
    folder: Path,
    cfg: DecoderConfig,
    mesh: Mesh,
    *,
    dtype: DTypeLike = jnp.float32,
    splits: tuple[int, ...] | None = None,
    shardings: nnx.State | None = None,
) -> nnx.State:
    """Returns the tree of weights in `dtype`.

    `shardings` are those of `param_shardings` if left out. Raises `BadInput` once for all tensors that are missing,
    unknown, duplicate or of a wrong shape, `CorruptData` for a damaged file.
    """
    placed = dict(nnx.to_flat_state(shardings if shardings is not None else param_shardings(cfg, mesh, splits)))
    tensors = hf_tensors(cfg, splits)
    stored = FolderTensors(folder)
    stored.check(tensors, cfg)
    together: dict[tuple[Any, ...], list[HfTensor]] = defaultdict(list)
    for tensor in tensors:
        together[tuple(dict.fromkeys(part.path for part in tensor.parts))].append(tensor)
    # Large ones first: the host holds their shards while the devices, if these are simulated, are still empty.
    by_size = sorted(together.items(), key=lambda item: -sum(math.prod(tensor.shape) for tensor in item[1]))
    loaded = {}

    def reads() -> Iterator[_Read]:
        for paths, group in by_size:
            weights = {path: _HostShards(path, group, placed[path].get_value(), dtype) for path in paths}
            found = [_Read(tensor, stored.tensors[tensor.name], weights) for tensor in group]
            wanted = [read for read in found if read.places]
            wanted[-1] = wanted[-1]._replace(last=True)
            yield from wanted

    coming = reads()
    with progress.track("load model", total=len(placed), unit="weights") as bar, ThreadPoolExecutor(1) as thread:

        def begin() -> tuple[_Read, Future[np.ndarray]] | None:
            read = next(coming, None)
            return read and (read, thread.submit(read.stored.read, read.rows))

        begun = begin()
        while begun:
            read, rows = begun[0], begun[1].result()
            begun = begin()
            read.put(rows)
            del rows
            if read.last:
                for path, weight in read.weights.items():
                    loaded[path] = placed[path].replace(weight.to_devices())
                    bar.advance()
    return nnx.from_flat_state({path: loaded[path] for path in placed})


class _HostShards:
    """A weight on its way to the devices: its parts that this host's devices hold, each once."""

    def __init__(
        self, path: tuple[Any, ...], tensors: list[HfTensor], sharding: jax.sharding.Sharding, dtype: DTypeLike
    ):
        parts = [part for tensor in tensors for part in tensor.parts if part.path == path]
        leading = [max(along) + 1 for along in zip(*(part.at for part in parts), strict=True)]
        self._shape, self._sharding = (*leading, *parts[0].shape), sharding
        self._spans: dict[jax.Device, tuple[range, ...]] = {}
        for device, index in sharding.addressable_devices_indices_map(self._shape).items():
            assert index is not None
            self._spans[device] = tuple(range(*s.indices(n)) for s, n in zip(index, self._shape, strict=True))
        self._shards = {spans: np.empty(list(map(len, spans)), dtype) for spans in self._spans.values()}

    def at(self, part: Part) -> Iterator[tuple[tuple[range, ...], np.ndarray]]:
        """Yields what is wanted of `part`: spans of its axes, and the view to write them to."""
        for spans, shard in self._shards.items():
            leading, inner = spans[: len(part.at)], spans[len(part.at) :]
            if all(i in span for i, span in zip(part.at, leading, strict=True)):
                yield inner, shard[tuple(i - span.start for i, span in zip(part.at, leading, strict=True))]

    def to_devices(self) -> jax.Array:
        """Returns the weight; each shard's memory on the host is given back before the next one is copied."""
        arrays: dict[jax.Device, jax.Array] = {}
        while self._shards:
            spans, shard = self._shards.popitem()
            copies = {d: jax.device_put(shard, d) for d, wanted in self._spans.items() if wanted == spans}
            jax.block_until_ready(list(copies.values()))
            arrays |= copies
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, [arrays[d] for d in self._spans])


class _Read(NamedTuple):
    """A tensor to be read: its rows from the first that is wanted to the last."""

    tensor: HfTensor
    stored: StoredTensor
    weights: dict[tuple[Any, ...], _HostShards]
    """The weights that have parts in the tensor, by path."""
    last: bool = False
    """Whether the weights have all their parts after this read."""

    @property
    def places(self) -> list[tuple[Part, tuple[range, ...], np.ndarray, tuple[slice, ...]]]:
        """What is wanted: a part, spans of its axes, the view to write them to, and their region in the tensor."""
        return [
            (part, spans, view, part.region_of(spans))
            for part in self.tensor.parts
            for spans, view in self.weights[part.path].at(part)
        ]

    @property
    def rows(self) -> slice:
        regions = [region for *_, region in self.places]
        return slice(min(r[0].start for r in regions), max(r[0].stop for r in regions))

    def put(self, rows: np.ndarray) -> None:
        """Writes what was read to its places."""
        first = self.rows.start
        for part, spans, view, (along, *others) in self.places:
            own = slice(along.start - first, along.stop - first, along.step)
            view[...] = part.from_hf(rows[(own, *others)], spans)


def check_weights(folder: Path, cfg: DecoderConfig) -> None:
    """Raises what `load_params` would raise, from the files' headers alone."""
    FolderTensors(folder).check(hf_tensors(cfg), cfg)
