"""The work of a training step, by formula: a model's sizes, arithmetic operations, and bytes that are kept and moved.

A multiplication and an addition count as two operations.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from flax import nnx

from o1p_jax.config.tree import ComputeConfig, RunConfig
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import abstract_params

_STATE_BYTES = 12
"""Bytes of a trained parameter in float32 with its two moments."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A model's numbers of parameters."""

    total: int
    multiplied: int
    """Parameters that a token is multiplied with: not the embedding's rows, nor the experts it does not go to."""
    experts: int
    """Parameters of all experts together."""


@functools.cache  # a sweep asks for the same model thousands of times
def model_sizes(model: DecoderConfig) -> Sizes:
    """Counts the parameters in the weights' declarations."""
    total = multiplied = experts = 0
    for path, weight in nnx.to_flat_state(abstract_params(model)):
        size = math.prod(weight.shape)
        total += size
        if path == ("embed",) and not model.tied:
            continue
        share = 1.0
        if model.experts is not None and "experts" in weight.get_metadata("logical_axes"):
            share = model.experts.per_token / model.experts.count
            experts += size
        multiplied += round(size * share)
    return Sizes(total=total, multiplied=multiplied, experts=experts)


def step_flops(model: DecoderConfig, tokens: int, row_length: int, trained: int | None = None) -> float:
    """Returns the operations of a step on `tokens` tokens in full rows of one text each.

    The last `trained` layers are trained (None: the whole model). A parameter takes 2 operations a token forward and 4
    backward; the layers below the trained ones take only the former, an output projection that is not trained 4 in all.
    Attention takes 4 a head, head's width and visible key (scores and values) forward and twice that backward.
    """
    layers = trained or model.layers
    head = model.vocab_size * model.hidden_size
    in_layers = (model_sizes(model).multiplied - head) / model.layers
    visible = []
    for kind in (model.kinds[i] for i in model.pattern or (0,) * model.layers):
        window = min(kind.window or row_length, row_length)
        visible.append(window - window * (window - 1) / (2 * row_length))  # a row's mean: it rises, then is full
    flops = (6 if trained is None else 4) * head + in_layers * (6 * layers + 2 * (model.layers - layers))
    attention = 3 * sum(visible[model.layers - layers :]) + sum(visible[: model.layers - layers])
    return tokens * (flops + 4 * model.heads * model.head_dim * attention)


def computed_flops(model: DecoderConfig, tokens: int, row_length: int, compute: ComputeConfig) -> float:
    """Returns the operations of a step with those that the backward pass computes again.

    These are the logits always, and the trained layers under full rematerialisation.
    """
    layers = compute.trainable_layers or model.layers
    head = 2 * tokens * model.vocab_size * model.hidden_size
    flops = step_flops(model, tokens, row_length, compute.trainable_layers) + head
    if compute.remat != "full":
        return flops
    return flops + (step_flops(model, tokens, row_length) / 3 - head) * layers / model.layers


def memory_bytes(
    model: DecoderConfig, device_state: float, tokens: float, microbatches: int, mesh: Mapping[str, int],
    compute: ComputeConfig,
) -> float:  # fmt: skip
    """Returns the bytes that a device reads and writes in a step.

    The gathered weights (of experts its own) are read once a pass and microbatch, each layer's activations are moved
    about 16 times their width a pass, and parameters, moments and gradients (`device_state` bytes of float32 parameters
    and moments) are read once and written once.
    """
    sizes, tensor = model_sizes(model), mesh["tensor"]
    held = sizes.total - sizes.experts * (1 - 1 / mesh["expert"])
    itemsize = 2 if compute.dtype == "bfloat16" else 4
    passes = 4 if compute.remat == "full" else 3
    weights = passes * microbatches * held * itemsize / tensor
    activations = passes * 16 * tokens * model.layers * model.hidden_size * itemsize / tensor
    return weights + activations + 2.67 * device_state


def activation_bytes(model: DecoderConfig, cfg: RunConfig, mesh: Mapping[str, int]) -> float:
    """Returns the bytes that a device keeps from the forward pass of a microbatch for the backward pass.

    Under full rematerialisation each layer's input is kept; under light, the results of its products too; without any,
    about twice that.
    """
    tokens = (
        cfg.batch.rows_per_microbatch
        * cfg.batch.row_length
        / math.prod(mesh[axis] for axis in ("replica", "fsdp", "expert", "context"))
    )
    width = float(model.hidden_size)
    if cfg.compute.remat != "full":  # queries, keys, values, attention's output, gate and up
        # A device holds room for all tokens that are gathered along "expert", should they all want its own experts.
        experts = 1 if model.experts is None else model.experts.per_token * mesh["expert"]
        products = 2 * (model.heads + model.kv_heads) * model.head_dim + 2 * experts * model.mlp_size
        width += products / mesh["tensor"] * (1 if cfg.compute.remat == "light" else 2)
    return tokens * model.layers * width * (2 if cfg.compute.dtype == "bfloat16" else 4)


def device_bytes(cfg: RunConfig, model: DecoderConfig, mesh: Mapping[str, int]) -> float:
    """Returns the bytes of a device that a training step takes, as if all layers were trained.

    These are the state, gradients, activations (a compiler holds about half as much again beside them), the gathered
    weights of three layers, and the projection to words.
    """
    sizes = model_sizes(model)
    head = 2 * model.vocab_size * model.hidden_size
    layers = 3 * 2 * (sizes.total - head / 2) / model.layers
    gathered = (layers / mesh["expert"] + 2 * head) / mesh["tensor"]
    state = _STATE_BYTES * sizes.total / (math.prod(mesh.values()) / mesh["context"])
    return 4 / 3 * state + 1.5 * activation_bytes(model, cfg, mesh) + gathered
