"""The weights of the model that this process trained last stay on its devices, to be sampled from without its folder.

They are the bits that loading the folder gives, and are found by the folder's digest. One model's weights are kept, and
only until other weights need the memory.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.hf.folder import FolderTensors
from o1p_jax.models.hf.names import hf_tensors
from o1p_jax.models.hf.safetensors import DTYPES
from o1p_jax.models.source import exported_digest

_CAST_ALIKE = {"float32", "bfloat16"}
"""The exported types that every device casts to as NumPy does; small numbers of float16 are 0 on some."""


class Kept:
    """The weights of an exported model, in the type `dtype` and where they were trained, until a sampler moves them."""

    def __init__(self, digest: str, dtype: str, params: nnx.State):
        self.digest, self.dtype, self._params = digest, dtype, params

    def on(self, shardings: nnx.State) -> nnx.State:
        """Moves the weights to where the tree of `shardings` wants them, which may be where they are; returns them."""
        wanted = dict(nnx.to_flat_state(shardings))
        moved = _one_by_one(self._params, lambda path, weight: _moved(weight, wanted[path].get_value()))
        # The metadata of those that are loaded: with other metadata the sampler would be compiled anew.
        flat = {path: wanted[path].replace(weight.get_value()) for path, weight in nnx.to_flat_state(moved)}
        self._params = nnx.from_flat_state(flat)
        return self._params


_kept: list[Kept] = []


def keep(params: nnx.State, cfg: DecoderConfig, exported: Path, dtype: str) -> None:
    """Keeps `params`, which were exported to the folder `exported`, in the type `dtype`; the arrays given are used up.

    A weight at a time, they are cast as they were for the export, and then as loading casts. Nothing is kept where that
    might give other bits than the folder: a weight whose tensors were exported in several types or in float16, or
    layers that training has split into several stacks. The folder is loaded then.
    """
    let_go()
    types = _exported_types(cfg, exported)
    if types.keys() != {path for path, _ in nnx.to_flat_state(params)} or not set(types.values()) <= _CAST_ALIKE:
        return
    # Two steps that the compiler does not see together: it may leave out the way to bfloat16 and back.
    params = _one_by_one(params, lambda path, weight: _cast(weight, types[path]))
    params = _one_by_one(params, lambda _, weight: _cast(weight, dtype))
    _kept.append(Kept(exported_digest(exported), dtype, params))


def kept(digest: str | None, dtype: str) -> Kept | None:
    """Returns the weights, in `dtype`, of the model with this digest, if they are kept; lets others go."""
    if not any((weights.digest, weights.dtype) == (digest, dtype) for weights in _kept):
        let_go()
    return _kept[0] if _kept else None


def is_kept(digest: str) -> bool:
    """Returns whether the weights of the model with this digest are kept."""
    return any(weights.digest == digest for weights in _kept)


def let_go() -> None:
    """Gives the memory of the weights that are kept back."""
    _kept.clear()


def _exported_types(cfg: DecoderConfig, exported: Path) -> dict[tuple[Any, ...], str]:
    """Returns the type that each weight, by its path, has in the folder's files; several types are joined."""
    stored = FolderTensors(exported).tensors
    types: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for tensor in hf_tensors(cfg):
        for part in tensor.parts:
            types[part.path].add(DTYPES[stored[tensor.name].dtype])
    return {path: " and ".join(sorted(found)) for path, found in types.items()}


def _one_by_one(params: nnx.State, change: Callable[[tuple[Any, ...], jax.Array], jax.Array]) -> nnx.State:
    """Returns `params` with each weight changed, one at a time, so that no two copies of all of them exist."""
    changed = {}
    for path, weight in nnx.to_flat_state(params):
        changed[path] = weight.replace(change(path, weight.get_value()))
    return nnx.from_flat_state(changed)


def _cast(weight: jax.Array, dtype: str) -> jax.Array:
    if weight.dtype == dtype:
        return weight
    cast = jax.block_until_ready(weight.astype(jnp.dtype(dtype)))
    weight.delete()
    return cast


def _moved(weight: jax.Array, to: jax.sharding.Sharding) -> jax.Array:
    if weight.sharding.is_equivalent_to(to, weight.ndim):
        return jax.device_put(weight, to)  # the same memory by another name
    # Compiled, so that the devices send each other what they lack; `device_put` may go through the host.
    moved = jax.block_until_ready(jax.jit(_same, out_shardings=to)(weight))
    weight.delete()
    return moved


def _same(weight: jax.Array) -> jax.Array:
    return weight
