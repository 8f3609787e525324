"""The memory of a device that a training step takes, by formula, and how many token slots of a microbatch it leaves.

The formula is held against programs that were compiled for pods (docs/pods.md): it errs by a fifth at most.
"""

import math
from collections.abc import Mapping

from jax.sharding import Mesh

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.devices import processes
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.sizes import model_sizes

TOKENS_ON_CPU = 2048
"""Token slots of a device and microbatch on CPUs: more of them are no faster."""
_TRAINED_BYTES = 20
"""Bytes of a trained parameter in float32, with its two moments, its gradient and the gradients' sum."""
_USED = 0.9
"""Share of the memory that is filled: the formula is none of the compiler's."""


def tokens_per_device(
    given: int | None, model: DecoderConfig, compute: ComputeConfig, mesh: Mesh, longest: int = 0
) -> int:
    """Returns the most token slots of a device and microbatch: `given`, or where that is None as many as fit.

    These are never fewer than a sample of `longest` tokens takes: the formula may be wrong, and may not refuse a run.
    All processes of a job get the same answer. A CPU's devices have no memory of their own: there it is a fixed number.
    """
    if given is not None:
        return given

    def memory() -> int:
        return (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit", 0)

    limit = processes.once(memory)
    fitting = tokens_that_fit(model, compute, mesh.shape, limit) if limit else TOKENS_ON_CPU
    return max(fitting, -(-longest // mesh.shape["context"]))


def tokens_that_fit(model: DecoderConfig, compute: ComputeConfig, mesh: Mapping[str, int], memory: float) -> int:
    """Returns how many token slots of a microbatch a device with so many bytes of memory has room for; at least 1."""
    left = _USED * memory - device_bytes(model, compute, mesh, 0)
    return max(1, int(left / token_bytes(model, compute, mesh)))


def device_bytes(model: DecoderConfig, compute: ComputeConfig, mesh: Mapping[str, int], tokens: float) -> float:
    """Returns the bytes of a device that a step takes where it has `tokens` token slots of a microbatch.

    These are the state and the gradients, the gathered weights of three layers, the projection to words and a chunk of
    logits, and what depends on the tokens.
    """
    sizes, itemsize = model_sizes(model), _itemsize(compute)
    trained = (compute.trainable_layers or model.layers) / model.layers
    head = itemsize * model.vocab_size * model.hidden_size
    layers = 3 * (itemsize * sizes.total - head) / model.layers
    gathered = (layers / mesh["expert"] + 2 * head) / mesh["tensor"]
    logits = 3 * 4 * compute.logprob_chunk * model.vocab_size / mesh["tensor"]
    weights = sizes.total * (trained * _TRAINED_BYTES + (1 - trained) * itemsize)
    split = math.prod(mesh[axis] for axis in ("fsdp", "expert", "tensor"))
    return weights / split + gathered + logits + tokens * token_bytes(model, compute, mesh)


def token_bytes(model: DecoderConfig, compute: ComputeConfig, mesh: Mapping[str, int]) -> float:
    """Returns the bytes that a token slot of a microbatch takes on its device: kept activations, and a layer's work."""
    # A device holds room for all tokens that are gathered along "expert", should they all want its own experts.
    experts = 1 if model.experts is None else model.experts.per_token * mesh["expert"]
    # Queries, keys, values, attention's output, gate and up.
    products = (2 * (model.heads + model.kv_heads) * model.head_dim + 2 * experts * model.mlp_size) / mesh["tensor"]
    kept = model.hidden_size + products * {"full": 0, "light": 1, "none": 2}[compute.remat]
    return _itemsize(compute) * (model.layers * kept + products + 4 * model.hidden_size)


def _itemsize(compute: ComputeConfig) -> int:
    return 2 if compute.dtype == "bfloat16" else 4
