"""Hugging Face's tensor names and layouts: one table a family, read in both directions.

An entry says where a weight of ours lies and how its axes stand there: "DHK -> HK,D" is a weight of ours with the axes
D, H, K that Hugging Face keeps as a matrix, its first axis H and K flattened, its second D. Letters as in decoder.py.
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

_LLAMA = {
    "embed": ("model.embed_tokens.weight", "VD -> V,D"),
    "norm": ("model.norm.weight", "D -> D"),
    "head": ("lm_head.weight", "DV -> V,D"),
    "attn_norm": ("model.layers.{}.input_layernorm.weight", "D -> D"),
    "q": ("model.layers.{}.self_attn.q_proj.weight", "DHK -> HK,D"),
    "k": ("model.layers.{}.self_attn.k_proj.weight", "DGK -> GK,D"),
    "v": ("model.layers.{}.self_attn.v_proj.weight", "DGK -> GK,D"),
    "o": ("model.layers.{}.self_attn.o_proj.weight", "HKD -> D,HK"),
    "q_bias": ("model.layers.{}.self_attn.q_proj.bias", "HK -> HK"),
    "k_bias": ("model.layers.{}.self_attn.k_proj.bias", "GK -> GK"),
    "v_bias": ("model.layers.{}.self_attn.v_proj.bias", "GK -> GK"),
    "o_bias": ("model.layers.{}.self_attn.o_proj.bias", "D -> D"),
    "mlp_norm": ("model.layers.{}.post_attention_layernorm.weight", "D -> D"),
    "gate": ("model.layers.{}.mlp.gate_proj.weight", "DF -> F,D"),
    "up": ("model.layers.{}.mlp.up_proj.weight", "DF -> F,D"),
    "down": ("model.layers.{}.mlp.down_proj.weight", "FD -> D,F"),
    "gate_bias": ("model.layers.{}.mlp.gate_proj.bias", "F -> F"),
    "up_bias": ("model.layers.{}.mlp.up_proj.bias", "F -> F"),
    "down_bias": ("model.layers.{}.mlp.down_proj.bias", "D -> D"),
}
_QWEN3 = _LLAMA | {
    "q_norm": ("model.layers.{}.self_attn.q_norm.weight", "K -> K"),
    "k_norm": ("model.layers.{}.self_attn.k_norm.weight", "K -> K"),
}
TABLES: dict[str, dict[str, tuple[str, str]]] = {"llama": _LLAMA, "qwen2": _LLAMA, "qwen3": _QWEN3}
"""Family -> our weight's name -> (Hugging Face's name, `{}` standing for the layer; layout)."""


def ignored(name: str, cfg: DecoderConfig) -> bool:
    """Tensors that some checkpoints carry and no model reads: old RoPE buffers, the head of a tied model."""
    return name.endswith(".rotary_emb.inv_freq") or (cfg.tied and name == _LLAMA["head"][0])


class HfTensor(NamedTuple):
    """A tensor of the checkpoint, and what it is to us."""

    name: str
    path: tuple[Any, ...]
    """Of our weight in the tree of parameters."""
    layer: int | None
    """Index along the weight's first axis, the stack's layers; None outside of stacks."""
    shape: tuple[int, ...]
    """Of our weight, without the axis of layers."""
    groups: tuple[tuple[int, ...], ...]
    """For each axis of the checkpoint's tensor, our axes that are flattened into it."""

    @property
    def hf_shape(self) -> tuple[int, ...]:
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
        order = [a for g in self.groups for a in g]
        return read(tuple(cut)).reshape([len(spans[a]) for a in order]).transpose(np.argsort(order))


def hf_tensors(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> list[HfTensor]:
    """Every tensor of the checkpoint of `cfg`, for the tree of parameters that `splits` gives."""
    tensors: list[HfTensor] = []
    params = abstract_params(cfg, splits)
    first_layer = list(itertools.accumulate(stack_lengths(params), initial=0))
    for path, weight in nnx.to_flat_state(params):
        name, layout = TABLES[cfg.family][str(path[-1])]
        ours, hf = layout.split(" -> ")
        groups = tuple(tuple(ours.index(axis) for axis in group) for group in hf.split(","))
        if path[0] == "stacks":
            n, *shape = weight.shape
            first = first_layer[path[1]]  # type: ignore[call-overload]
            tensors += [HfTensor(name.format(first + i), path, i, tuple(shape), groups) for i in range(n)]
        else:
            tensors.append(HfTensor(name, path, None, weight.shape, groups))
    return tensors


def stack_lengths(params: nnx.State) -> tuple[int, ...]:
    """The `splits` that a tree of parameters was made with."""
    return tuple(stack["attn_norm"].shape[0] for _, stack in sorted(params["stacks"].items()))


def layer_of(weight: jax.Array, layer: int | None) -> jax.Array:
    """One layer of a stacked weight; the weight itself outside of stacks."""
    return weight if layer is None else jax.lax.dynamic_index_in_dim(weight, layer, keepdims=False)
