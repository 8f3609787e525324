"""Log-probabilities of tokens, a chunk of tokens at a time.

Legend: B rows, L tokens a row, D model width, V vocabulary, C tokens a chunk, N chunks.
"""

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

    Only `chunk` tokens a row and device have logits at a time, in the backward pass too, which computes them again: for
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
    b, length, d = hidden_BLD.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    rest = chunks * chunk - length
    hidden_BLD = jnp.pad(hidden_BLD, ((0, 0), (0, rest), (0, 0)))
    targets_BL = jnp.pad(targets_BL, ((0, 0), (0, rest)))
    words_11V = jnp.arange(head_DV.shape[1], dtype=targets_BL.dtype)[None, None, :]
    if axes:
        head_DV = jax.lax.all_gather(head_DV, ("fsdp", "expert"), axis=0, tiled=True)
        words_11V += jax.lax.axis_index("tensor").astype(words_11V.dtype) * head_DV.shape[1]

    def over_words(local_BC: Array, reduce: Callable[[Array, str], Array]) -> Array:
        return reduce(local_BC, "tensor") if axes else local_BC

    @jax.checkpoint
    def one_chunk(hidden_BCD: Array, targets_BC: Array) -> Array:
        logits_BCV = logits(product("bcd,dv->bcv", hidden_BCD, head_DV))
        # A masked sum, not a gather: a device holds only a part of the vocabulary.
        target_BC = jnp.sum(jnp.where(targets_BC[:, :, None] == words_11V, logits_BCV, 0.0), axis=-1)
        highest_BC = over_words(jax.lax.stop_gradient(jnp.max(logits_BCV, axis=-1)), jax.lax.pmax)
        total_BC = over_words(jnp.sum(jnp.exp(logits_BCV - highest_BC[..., None]), axis=-1), jax.lax.psum)
        return over_words(target_BC, jax.lax.psum) - highest_BC - jnp.log(total_BC)

    hidden_NBCD = hidden_BLD.reshape(b, chunks, chunk, d).swapaxes(0, 1)
    targets_NBC = targets_BL.reshape(b, chunks, chunk).swapaxes(0, 1)
    logprobs_NBC = jax.lax.map(lambda part: one_chunk(*part), (hidden_NBCD, targets_NBC))
    return logprobs_NBC.swapaxes(0, 1).reshape(b, chunks * chunk)[:, :length]
