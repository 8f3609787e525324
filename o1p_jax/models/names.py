"""Hugging Face's tensor names and layouts: a family's table of `names`, read in both directions.

An entry says where a weight of ours lies and how its axes stand there: "DHK -> HK,D" is a weight of ours with the axes
D, H, K that Hugging Face keeps as a matrix, its first axis H and K flattened, its second D. Letters as in decoder.py.
Weights with the same name lie in one tensor, one after the other along its first axis, in the order of the table.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import abstract_params
from o1p_jax.models.families import FAMILIES


def ignored(name: str, cfg: DecoderConfig) -> bool:
    """Tensors that some checkpoints carry and no model reads: old RoPE buffers, the head of a tied model."""
    return name.endswith(".rotary_emb.inv_freq") or (cfg.tied and name == FAMILIES[cfg.family].names["head"][0])


class Part(NamedTuple):
    """One weight of ours, or one layer of it, as a part of a tensor of the checkpoint."""

    tensor: str
    """The tensor's name."""
    path: tuple[Any, ...]
    """Of our weight in the tree of parameters."""
    layer: int | None
    """Index along the weight's first axis, the stack's layers; None outside of stacks."""
    shape: tuple[int, ...]
    """Of our weight, without the axis of layers."""
    groups: tuple[tuple[int, ...], ...]
    """For each axis of the checkpoint's tensor, our axes that are flattened into it."""
    offset: int = 0
    """Where the part begins along the tensor's first axis."""

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """Of the part alone."""
        return tuple(math.prod(self.shape[a] for a in group) for group in self.groups)

    def to_hf(self, ours: np.ndarray) -> np.ndarray:
        """Our weight (one layer of it) as the checkpoint lays it out."""
        return np.ascontiguousarray(ours.transpose([a for g in self.groups for a in g]).reshape(self.hf_shape))

    def from_hf(self, read: Callable[[tuple[slice, ...]], np.ndarray], index: tuple[slice, ...]) -> np.ndarray:
        """The part `index` of our weight; `read` hands out a part of the checkpoint's tensor."""
        spans = [range(*s.indices(n)) for s, n in zip(index, self.shape, strict=True)]
        cut = []
        for first, *inner in self.groups:
            assert all(len(spans[a]) == self.shape[a] for a in inner), "only the outer of flattened axes is sharded"
            width = math.prod(self.shape[a] for a in inner)
            cut.append(slice(spans[first].start * width, spans[first].stop * width))
        cut[0] = slice(self.offset + cut[0].start, self.offset + cut[0].stop)
        order = [a for g in self.groups for a in g]
        return read(tuple(cut)).reshape([len(spans[a]) for a in order]).transpose(np.argsort(order))


class HfTensor(NamedTuple):
    """A tensor of the checkpoint, and what it is to us."""

    name: str
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.hf_shape[0] for part in self.parts), *self.parts[0].hf_shape[1:])


def hf_tensors(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> list[HfTensor]:
    """Every tensor of the checkpoint of `cfg`, for the tree of parameters that `splits` gives."""
    params = abstract_params(cfg, splits)
    first_layer = list(itertools.accumulate(stack_lengths(params), initial=0))
    table = FAMILIES[cfg.family].names
    order = list(table)
    parts: dict[str, list[Part]] = {}
    for path, weight in sorted(nnx.to_flat_state(params), key=lambda item: order.index(str(item[0][-1]))):
        name, layout = table[str(path[-1])]
        ours, hf = layout.split(" -> ")
        groups = tuple(tuple(ours.index(axis) for axis in group) for group in hf.split(","))
        layers: list[int | None] = list(range(weight.shape[0])) if path[0] == "stacks" else [None]
        for layer in layers:
            full = name if layer is None else name.format(first_layer[path[1]] + layer)  # type: ignore[call-overload]
            shape = weight.shape if layer is None else weight.shape[1:]
            before = parts.setdefault(full, [])
            before.append(Part(full, path, layer, shape, groups, sum(part.hf_shape[0] for part in before)))
    return [HfTensor(name, tuple(of_tensor)) for name, of_tensor in parts.items()]


def stack_lengths(params: nnx.State) -> tuple[int, ...]:
    """The `splits` that a tree of parameters was made with."""
    return tuple(stack["q"].shape[0] for _, stack in sorted(params["stacks"].items()))


def layer_of(weight: jax.Array, layer: int | None) -> np.ndarray:
    """One layer of a stacked weight, or a weight outside of stacks, gathered on the host from the devices."""
    shape = weight.shape if layer is None else weight.shape[1:]
    whole = np.empty(shape, weight.dtype)
    for shard in weight.addressable_shards:
        if shard.replica_id == 0:
            data = shard.data if layer is None else jax.lax.dynamic_index_in_dim(shard.data, layer, keepdims=False)
            whole[shard.index if layer is None else shard.index[1:]] = data
    return whole
