"""Weights are read from a Hugging Face folder straight into each device's shards, a part of a tensor at a time."""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.folder import FolderTensors
from o1p_jax.models.hf.names import Part, hf_tensors
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
    """Returns the tree of weights in `dtype`; each device reads only its own part of them.

    `shardings` are those of `param_shardings` if left out. Raises `BadInput` once for all tensors that are missing,
    unknown, duplicate or of a wrong shape, `CorruptData` for a damaged file.
    """
    placed = dict(nnx.to_flat_state(shardings if shardings is not None else param_shardings(cfg, mesh, splits)))
    by_path: dict[tuple, list[Part]] = defaultdict(list)
    tensors = hf_tensors(cfg, splits)
    for tensor in tensors:
        for part in tensor.parts:
            by_path[part.path].append(part)
    stored = FolderTensors(folder)
    stored.check(tensors, cfg)
    with progress.track("load model", total=len(by_path), unit="weights") as bar:

        def load(parts: list[Part], sharding: jax.sharding.Sharding) -> jax.Array:
            leading = [max(along) + 1 for along in zip(*(part.at for part in parts), strict=True)]
            shape = (*leading, *parts[0].shape)
            devices: dict[str, list[jax.Device]] = defaultdict(list)
            indices = sharding.addressable_devices_indices_map(shape)
            for device, index in indices.items():
                devices[str(index)].append(device)
            shards: dict[jax.Device, jax.Array] = {}
            for replicas in devices.values():  # one part at a time, read once for all devices that hold it
                index = indices[replicas[0]]
                assert index is not None
                spans = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
                found = np.empty([len(span) for span in spans], dtype)
                for part in parts:
                    if all(i in span for i, span in zip(part.at, spans, strict=False)):
                        place = tuple(i - span.start for i, span in zip(part.at, spans, strict=False))
                        found[place] = part.from_hf(stored.tensors[part.tensor].read, index[len(leading) :])
                shards |= {device: jax.device_put(found, device) for device in replicas}
                jax.block_until_ready([shards[device] for device in replicas])
            return jax.make_array_from_single_device_arrays(shape, sharding, [shards[device] for device in indices])

        loaded = {}
        for path, parts in by_path.items():
            loaded[path] = placed[path].replace(load(parts, placed[path].get_value()))
            bar.advance()
    return nnx.from_flat_state(loaded)


def check_weights(folder: Path, cfg: DecoderConfig) -> None:
    """Raises what `load_params` would raise, from the files' headers alone."""
    FolderTensors(folder).check(hf_tensors(cfg), cfg)
