"""Hugging Face's tensor names and layouts: a family's table of `names`, read in both directions.

An entry says where a weight of the decoder lies and how its axes stand there: "DHK -> HK,D" is a weight of the decoder
with the axes D, H, K that Hugging Face keeps as a matrix, its first axis H and K flattened, its second D. The letters
are those of decoder.py and layers.py. Each `{}` in a name stands for an axis that comes before those: the layer, then
the expert where each expert has a tensor of its own. Weights with the same name lie in one tensor: one after the other
along its first axis, in the order of the table, or, where a last axis is "2F" and "2F+1", in turns.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from numpy.typing import DTypeLike

from o1p_jax.devices import processes
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import abstract_params
from o1p_jax.models.families import FAMILIES

_AXIS = re.compile(r"(?P<step>\d*)(?P<ours>[A-Z]+)(\+(?P<start>\d+))?")
"""An axis of a tensor in a layout: "HK", "2F+1"."""


class Part(NamedTuple):
    """A weight of the decoder, or one layer or expert of it, as a part of a tensor of the checkpoint."""

    tensor: str
    """The tensor's name."""
    path: tuple[Any, ...]
    """The weight's path in the tree of parameters."""
    at: tuple[int, ...]
    """The index along the weight's first axes: layer in the stack, expert; () is the whole weight."""
    shape: tuple[int, ...]
    """The weight's shape, without those axes."""
    groups: tuple[tuple[int, ...], ...]
    """For each axis of the checkpoint's tensor, the axes of the weight that are flattened into it."""
    places: tuple[range, ...]
    """Where the part lies along each axis of the tensor."""

    @property
    def region(self) -> tuple[slice, ...]:
        """The part's place in the tensor, as slices."""
        return tuple(slice(r.start, r.stop, r.step) for r in self.places)

    @property
    def order(self) -> list[int]:
        """The weight's axes, as they follow one another in the checkpoint."""
        return [a for group in self.groups for a in group]

    def region_of(self, spans: Sequence[range]) -> tuple[slice, ...]:
        """Returns where the part of the weight with these spans of its axes lies in the tensor."""
        region = []
        for (first, *inner), places in zip(self.groups, self.places, strict=True):
            assert all(len(spans[a]) == self.shape[a] for a in inner), "only the outer of flattened axes is sharded"
            width = math.prod(self.shape[a] for a in inner)
            wanted = places[spans[first].start * width : spans[first].stop * width]
            region.append(slice(wanted.start, wanted.stop, wanted.step))
        return tuple(region)

    def from_hf(self, found: np.ndarray, spans: Sequence[range]) -> np.ndarray:
        """Returns the part of the weight with these spans of its axes, from `found` in its region of the tensor."""
        return found.reshape([len(spans[a]) for a in self.order]).transpose(np.argsort(self.order))

    def within(self, tensor: np.ndarray) -> np.ndarray:
        """Returns a view of the checkpoint's `tensor` with the weight's axes: writing to the view writes the tensor."""
        unflattened = [self.shape[a] for a in self.order]
        return np.reshape(tensor[self.region], unflattened, copy=False).transpose(np.argsort(self.order))


class HfTensor(NamedTuple):
    """A tensor of the checkpoint, and the weights of the decoder that lie in it."""

    name: str
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(max(r[-1] for r in places) + 1 for places in zip(*(p.places for p in self.parts), strict=True))

    def gather(self, weights: Mapping[tuple[Any, ...], jax.Array], dtype: DTypeLike) -> np.ndarray:
        """Returns the tensor on the host, from the devices' shards of the decoder's weights (path -> weight)."""
        whole = np.empty(self.shape, dtype)
        for part in self.parts:
            _copy(weights[part.path], part.at, part.within(whole))
        return whole


def hf_tensors(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> list[HfTensor]:
    """Returns every tensor of the checkpoint of `cfg`, for the tree of parameters that `splits` gives."""
    params = abstract_params(cfg, splits)
    first_layer = list(itertools.accumulate(stack_lengths(params), initial=0))
    table = FAMILIES[cfg.family].names
    order = list(table)
    parts: dict[str, list[Part]] = {}
    for path, weight in sorted(nnx.to_flat_state(params), key=lambda item: order.index(str(item[0][-1]))):
        name, layout = table[str(path[-1])]
        ours, hf = layout.split(" -> ")
        axes = [m for m in map(_AXIS.fullmatch, hf.split(",")) if m is not None]
        groups = tuple(tuple(ours.index(letter) for letter in axis["ours"]) for axis in axes)
        leading = name.count("{}")
        shape = weight.shape[leading:]
        for index in itertools.product(*map(range, weight.shape[:leading])):
            full = name
            if index:
                full = name.format(first_layer[path[1]] + index[0], *index[1:])  # type: ignore[call-overload]
            before = parts.setdefault(full, [])
            places = []
            for axis, group in zip(axes, groups, strict=True):
                n, step, start = math.prod(shape[a] for a in group), int(axis["step"] or 1), int(axis["start"] or 0)
                places.append(range(start, start + n * step, step))
            if before and all(r.step == 1 for r in places):
                places[0] = range(before[-1].places[0].stop, before[-1].places[0].stop + len(places[0]))
            before.append(Part(full, path, index, shape, groups, tuple(places)))
    return [HfTensor(name, tuple(of_tensor)) for name, of_tensor in parts.items()]


def stack_lengths(params: nnx.State) -> tuple[int, ...]:
    """Returns the `splits` that a tree of parameters was made with."""
    return tuple(stack["q"].shape[0] for _, stack in sorted(params["stacks"].items()))


def ignored(name: str, cfg: DecoderConfig) -> bool:
    """Returns whether the tensor `name` is one that some checkpoints carry and no model reads.

    These are old buffers of rotary embeddings, and a tied model's second copy of its embedding.
    """
    return name.endswith(".rotary_emb.inv_freq") or (cfg.tied and name == FAMILIES[cfg.family].names["head"][0])


def _copy(weight: jax.Array, at: tuple[int, ...], out: np.ndarray) -> None:
    """Copies `weight[at]` (a layer, an expert of a layer, or with () all of it) from the devices, shard by shard."""
    if not weight.is_fully_addressable:  # other processes, which do the same now, hold parts of it
        for i in at:
            weight = jax.lax.dynamic_index_in_dim(weight, i, keepdims=False)
        out[...] = processes.whole(weight)
        return
    for shard in weight.addressable_shards:
        spans = [range(*s.indices(n)) for s, n in zip(shard.index, weight.shape, strict=True)]
        if shard.replica_id == 0 and all(i in span for i, span in zip(at, spans, strict=False)):
            data = shard.data
            for i, span in zip(at, spans, strict=False):
                data = jax.lax.dynamic_index_in_dim(data, i - span.start, keepdims=False)
            out[shard.index[len(at) :]] = data
