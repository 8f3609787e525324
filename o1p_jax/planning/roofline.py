"""The work of a training step, by formula: arithmetic operations, and bytes that are moved and sent.

A multiplication and an addition count as two operations.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.models.attention.tpu import LEAST_BLOCK, block_size
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.remat import Remat
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.hlo import Collective

RECOMPUTED: Mapping[Remat, frozenset[str]] = {
    "none": frozenset({"head"}),
    "light": frozenset({"head", "o"}),
    "full": frozenset({"head", "qkv", "attention", "o", "gate_up"}),
}
"""What the backward pass computes again: the logits always, of a layer all but what is kept and its last product."""


class Kernel(NamedTuple):
    """How much of a row an implementation of attention computes."""

    tile: int
    """The most queries or keys of a tile, the least that is left out."""
    backward: float
    """Operations of the backward pass for one of the forward pass, which has two products."""
    by_text: bool
    """Whether what lies in other texts of a row is left out; else only what causality and windows leave is."""


SPLASH = Kernel(tile=1024, backward=3.5, by_text=False)
"""Attention on TPUs: what the kernel leaves out is known at compile time, and two kernels of three and four products
make the derivatives."""
PACKED = Kernel(tile=128, backward=2.5, by_text=True)
"""Attention on GPUs, by a kernel or by the loop over tiles: five products make the derivatives."""


class Operations(NamedTuple):
    """Operations of a step, with those that are computed again."""

    products: float
    """Products with weights."""
    attention: float


def step_flops(model: DecoderConfig, tokens: float, row_length: int, trained: int | None = None) -> float:
    """Returns the operations of a step on `tokens` tokens in full rows of one text each, without what is done again.

    The last `trained` layers are trained (None: the whole model). A parameter takes 2 operations a token forward and 4
    backward; the layers below the trained ones take only the former, an output projection that is not trained 4 in all.
    Attention takes 4 a head, head's width and visible key (scores and values) forward and twice that backward.
    """
    layers, head = trained or model.layers, float(model.vocab_size * model.hidden_size)
    visible = []
    for window in _windows(model):
        window = min(window or row_length, row_length)
        visible.append(window - window * (window - 1) / (2 * row_length))  # a row's mean: it rises, then is full
    flops = (6 if trained is None else 4) * head
    flops += sum(_layer(model).values()) * (6 * layers + 2 * (model.layers - layers))
    attention = 3 * sum(visible[model.layers - layers :]) + sum(visible[: model.layers - layers])
    return tokens * (flops + 4 * model.heads * model.head_dim * attention)


def computed_operations(
    model: DecoderConfig, slots: float, spans: Iterable[int], kernel: Kernel, recomputed: Collection[str],
    trained: int | None = None,
) -> Operations:  # fmt: skip
    """Returns what is computed for `slots` token slots, whose attention runs over spans of these lengths.

    A span is a text where the kernel leaves the others out, else a whole row. `recomputed` names what the backward pass
    computes again, of "head", "qkv", "attention", "o", "gate_up" and "down"; `trained` is as in `step_flops`.
    """
    layers, head = trained or model.layers, float(model.vocab_size * model.hidden_size)
    parts = _layer(model)
    again = sum(size for name, size in parts.items() if name in recomputed)
    products = (6 if trained is None else 4) * head + 2 * head * ("head" in recomputed)
    products += sum(parts.values()) * (6 * layers + 2 * (model.layers - layers)) + 2 * layers * again
    lengths, counts = np.unique(np.fromiter(spans, int), return_counts=True)
    pairs = {w: sum(c * computed_pairs(n, w, kernel) for n, c in zip(lengths.tolist(), counts.tolist(), strict=True))
             for w in set(_windows(model))}  # fmt: skip
    of_layers = [pairs[window] for window in _windows(model)]
    passes = 1 + kernel.backward + ("attention" in recomputed)
    attention = passes * sum(of_layers[model.layers - layers :]) + sum(of_layers[: model.layers - layers])
    return Operations(slots * products, 4 * model.heads * model.head_dim * attention)


def computed_pairs(length: int, window: int | None, kernel: Kernel) -> float:
    """Returns how many pairs of a query and a key are computed in a span: those in all tiles that some query sees."""
    tile = kernel.tile if kernel.by_text else block_size(length) or LEAST_BLOCK
    tiles = -(-length // tile)
    before = tiles - 1 if window is None else min(-(-(window - 1) // tile), tiles - 1)
    # The first tiles of queries see all tiles before them, the others so many of them.
    return tile**2 * ((before + 1) * tiles - before * (before + 1) / 2)


def mean_reach(model: DecoderConfig, spans: Iterable[int], kernel: Kernel) -> float:
    """Returns how many tiles of keys a tile of queries sees on average, over spans of these lengths and all layers."""
    tiles = pairs = 0.0
    for length in spans:
        tiles += model.layers * length / kernel.tile
        pairs += sum(computed_pairs(length, window, kernel) for window in _windows(model))
    return pairs / kernel.tile**2 / tiles


def memory_bytes(
    model: DecoderConfig, device_state: float, tokens: float, microbatches: float, mesh: Mapping[str, int],
    compute: ComputeConfig,
) -> float:  # fmt: skip
    """Returns the bytes that a device reads and writes in a step.

    The gathered weights (of experts its own) are read once a pass and microbatch, each layer's activations are moved
    about 16 times their width a pass, and parameters, moments and gradients (`device_state` bytes of float32 parameters
    and moments) are read once and written once. `tokens` are those of the devices along "tensor" together.
    """
    passes, itemsize, tensor = _passes(compute), _itemsize(compute), mesh["tensor"]
    weights = passes * microbatches * _held(model, mesh) * itemsize / tensor
    activations = passes * 16 * tokens * model.layers * model.hidden_size * itemsize / tensor
    return weights + activations + 2.67 * device_state


def sent_bytes(
    model: DecoderConfig, tokens: float, microbatches: float, mesh: Mapping[str, int], compute: ComputeConfig
) -> list[Collective]:
    """Returns about what a step sends along each axis of the mesh; a compiled program says exactly.

    Weights are gathered before each pass and gradients scattered once, all in each microbatch; along "tensor" each pass
    of a layer gathers and scatters its activations twice, along "context" it gathers keys and values, along "expert"
    tokens go there and back, and along "replica" gradients are summed. `tokens` are as in `memory_bytes`.
    """
    passes, itemsize, tensor = _passes(compute), _itemsize(compute), mesh["tensor"]
    width = itemsize * model.hidden_size
    cached = 2 * itemsize * model.kv_heads * model.head_dim / tensor
    sent = {
        "fsdp": passes * microbatches * itemsize * _held(model, mesh) / tensor,
        "tensor": passes * 4 * model.layers * tokens * width,
        "context": passes * model.layers * tokens * mesh["context"] * cached,
        "expert": passes * 2 * model.layers * tokens * mesh["expert"] * width,
        "replica": 2 * 4 * model_sizes(model).total / (mesh["fsdp"] * mesh["expert"] * tensor),
    }
    return [Collective("all-gather", axis, 1, round(n)) for axis, n in sent.items() if mesh[axis] > 1]


def _held(model: DecoderConfig, mesh: Mapping[str, int]) -> float:
    """Parameters of the layers that a device needs, all but other devices' experts."""
    sizes = model_sizes(model)
    return sizes.total - sizes.experts * (1 - 1 / mesh["expert"])


def _layer(model: DecoderConfig) -> dict[str, float]:
    """A layer's parameters that a token is multiplied with, by the product's name."""
    attention, experts = model.hidden_size * model.head_dim, model.experts
    matrix = model.hidden_size * model.mlp_size * (experts.per_token if experts else 1)
    router = model.hidden_size * experts.count if experts else 0
    return {
        "qkv": attention * (model.heads + 2 * model.kv_heads), "o": attention * model.heads,
        "gate_up": 2 * matrix + router, "down": matrix,
    }  # fmt: skip


def _windows(model: DecoderConfig) -> list[int | None]:
    """Each layer's window."""
    return [model.kinds[i].window for i in model.pattern or (0,) * model.layers]


def _passes(compute: ComputeConfig) -> int:
    """Passes over all layers: forward, backward with two products for one, and forward again."""
    return 4 if compute.remat == "full" else 3


def _itemsize(compute: ComputeConfig) -> int:
    return 2 if compute.dtype == "bfloat16" else 4
