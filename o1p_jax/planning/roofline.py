"""The work of a training step, by formula: arithmetic operations, and bytes that are moved.

A multiplication and an addition count as two operations.
"""

from collections.abc import Mapping

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.sizes import model_sizes


def step_flops(model: DecoderConfig, tokens: float, row_length: int, trained: int | None = None) -> float:
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


def computed_flops(model: DecoderConfig, tokens: float, row_length: int, compute: ComputeConfig) -> float:
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
    model: DecoderConfig, device_state: float, tokens: float, microbatches: float, mesh: Mapping[str, int],
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
