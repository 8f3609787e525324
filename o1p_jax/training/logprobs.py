"""Log-probabilities of tokens, a chunk of tokens at a time.

Legend: B rows, L tokens a row, D model width, V vocabulary, C tokens a chunk, N chunks of a device's tokens.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import free_axes, partition
from o1p_jax.models.products import product


def token_logprobs(
    hidden_BLD: Float[Array, "B L D"],
    head_DV: Float[Array, "D V"],
    targets_BL: Int[Array, "B L"],
    chunk: int,
    logits: Callable[[Array], Array] = lambda product: product,
) -> Float[Array, "B L"]:
    """Returns the log-probability of each target under softmax(logits(hidden @ head)): nats, float32, temperature 1.

    Only `chunk` tokens a device have logits at a time, in the backward pass too, which computes them again: for
    152k words, the logits of whole rows are what runs out of memory first. Under a mesh, rows lie as "batch" and
    "length", the head as "embed" and "vocab": the head is gathered once, and its gradient scattered once.
    """
    free = free_axes()
    device = partial(_logprobs_on_device, chunk=chunk, logits=logits, axes=free)
    if not free:
        return device(hidden_BLD, head_DV, targets_BL)
    rows = partition(("batch", "length"), mesh_axes=free)
    return jax.shard_map(
        device,
        in_specs=(rows, partition(("embed", "vocab"), mesh_axes=free), rows),
        out_specs=rows,
        axis_names=set(free),
        check_vma=False,
    )(hidden_BLD, head_DV, targets_BL)


def _logprobs_on_device(
    hidden_BLD: Array, head_DV: Array, targets_BL: Array, *, chunk: int, logits: Callable[[Array], Array],
    axes: tuple[str, ...],
) -> Array:  # fmt: skip
    """The log-probabilities of a device's rows; each device along "tensor" has a part of the vocabulary."""
    rows = hidden_BLD.shape[:2]
    count = math.prod(rows)
    chunks = -(-count // chunk)
    size = -(-count // chunks)

    def parts(x: Array) -> Array:
        """B L ... -> N C ..."""
        flat = x.reshape(count, *x.shape[2:])
        return jnp.pad(flat, ((0, chunks * size - count), *((0, 0),) * (x.ndim - 2))).reshape(
            chunks, size, *x.shape[2:]
        )

    words_1V = jnp.arange(head_DV.shape[1], dtype=targets_BL.dtype)[None, :]
    if axes:
        head_DV = jax.lax.all_gather(head_DV, ("fsdp", "expert"), axis=0, tiled=True)
        words_1V += jax.lax.axis_index("tensor").astype(words_1V.dtype) * head_DV.shape[1]

    def over_words(local_C: Array, reduce: Callable[[Array, str], Array]) -> Array:
        return reduce(local_C, "tensor") if axes else local_C

    @jax.checkpoint
    def one_chunk(hidden_CD: Array, targets_C: Array) -> Array:
        logits_CV = logits(product("cd,dv->cv", hidden_CD, head_DV))
        # A masked sum, not a gather: a device holds only a part of the vocabulary.
        target_C = jnp.sum(jnp.where(targets_C[:, None] == words_1V, logits_CV, 0.0), axis=-1)
        highest_C = over_words(jax.lax.stop_gradient(jnp.max(logits_CV, axis=-1)), jax.lax.pmax)
        total_C = over_words(jnp.sum(jnp.exp(logits_CV - highest_C[..., None]), axis=-1), jax.lax.psum)
        return over_words(target_C, jax.lax.psum) - highest_C - jnp.log(total_C)

    logprobs_NC = jax.lax.map(lambda part: one_chunk(*part), (parts(hidden_BLD), parts(targets_BL)))
    return logprobs_NC.reshape(-1)[:count].reshape(rows)
