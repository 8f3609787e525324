"""Log-probabilities of tokens, a block of words at a time.

Legend: B rows, L tokens a row, T a device's tokens, D model width, V vocabulary (of a device, where the mesh axis
"tensor" splits it), W words of a block.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import free_axes, partition

_ALIGNED = 128
"""Words of a block are a multiple of it, so that blocks begin where a TPU's tiles do."""
_SEEN = -(2**31)
"""Stands for a word that was in the block before; no target, counted from any device's first word, is so small."""


def token_logprobs(
    hidden_BLD: Float[Array, "B L D"],
    head_DV: Float[Array, "D V"],
    targets_BL: Int[Array, "B L"],
    chunk: int,
    logits: Callable[[Array], Array] = lambda product: product,
) -> Float[Array, "B L"]:
    """Returns the log-probability of each target under softmax(logits(hidden @ head)): nats, float32, temperature 1.

    Only as many logits exist at a time as `chunk` tokens of a device have, in the backward pass too, which computes
    them again: for 152k words, the logits of whole rows are what runs out of memory first. They are those of all tokens
    for a block of words, so that each number of the head's gradient is computed once, by one product, and nothing as
    large as the head is summed up. Under a mesh, rows lie as "batch" and "length", the head as "embed" and "vocab": the
    head is gathered once, and its gradient scattered once.
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
    """The log-probabilities of a device's rows."""
    targets_T = targets_BL.reshape(-1)
    if axes:
        head_DV = jax.lax.all_gather(head_DV, ("fsdp", "expert"), axis=0, tiled=True)
        targets_T -= jax.lax.axis_index("tensor").astype(targets_T.dtype) * head_DV.shape[1]
    hidden_TD = hidden_BLD.reshape(-1, hidden_BLD.shape[-1])
    return _logprobs(chunk, logits, bool(axes), hidden_TD, head_DV, targets_T).reshape(targets_BL.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _logprobs(
    chunk: int, logits: Callable[[Array], Array], spread: bool, hidden_TD: Array, head_DV: Array, targets_T: Array
) -> Array:
    """The targets' log-probabilities; `targets_T` count from the first word of `head_DV`, and may lie outside of it.

    Where the words are `spread` over the devices along "tensor", the sums are taken over all of them.
    """
    return _forward(chunk, logits, spread, hidden_TD, head_DV, targets_T)[0]


def _forward(
    chunk: int, logits: Callable[[Array], Array], spread: bool, hidden_TD: Array, head_DV: Array, targets_T: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The log-probabilities and what their derivative needs: of all logits only the logarithm of their softmax's sum.

    Of each token the highest logit and the sum so far are kept, and rescaled as the highest logit rises.
    """
    count, size = _blocks(len(targets_T), head_DV.shape[1], chunk)

    def add_block(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        highest_T, total_T, target_T = carry
        head_DW, words_W, _ = _block(head_DV, i, size)
        logits_TW = logits(_product("td,dw->tw", hidden_TD, head_DW))
        logits_TW = jnp.where((words_W == _SEEN)[None], -jnp.inf, logits_TW)
        raised_T = jnp.maximum(highest_T, jnp.max(logits_TW, axis=-1))
        sum_T = jnp.sum(jnp.exp(logits_TW - raised_T[:, None]), axis=-1)
        # A masked sum, not a gather: a block holds only a part of the vocabulary.
        found_T = jnp.sum(jnp.where(targets_T[:, None] == words_W[None], logits_TW, 0.0), axis=-1)
        return raised_T, total_T * jnp.exp(highest_T - raised_T) + sum_T, target_T + found_T

    zeros_T = jnp.zeros(len(targets_T), jnp.float32)
    highest_T, total_T, target_T = jax.lax.fori_loop(0, count, add_block, (zeros_T - jnp.inf, zeros_T, zeros_T))
    if spread:
        own_T, highest_T = highest_T, jax.lax.pmax(highest_T, "tensor")
        total_T, target_T = jax.lax.psum((total_T * jnp.exp(own_T - highest_T), target_T), "tensor")
    log_total_T = highest_T + jnp.log(total_T)
    return target_T - log_total_T, (hidden_TD, head_DV, targets_T, log_total_T)


def _backward(
    chunk: int, logits: Callable[[Array], Array], spread: bool, saved: tuple[Array, ...], d_out_T: Array
) -> tuple[Array, Array, None]:
    """The derivatives by hidden states and head; the logits of each block are computed again."""
    hidden_TD, head_DV, targets_T, log_total_T = saved
    count, size = _blocks(len(targets_T), head_DV.shape[1], chunk)
    if spread:  # Each of the devices, whose results are the same, was told a part of the derivative.
        d_out_T = jax.lax.psum(d_out_T, "tensor")

    def add_block(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        d_hidden_TD, d_head_DV = carry
        head_DW, words_W, first = _block(head_DV, i, size)
        logits_TW, bend = jax.vjp(logits, _product("td,dw->tw", hidden_TD, head_DW))
        ours_TW = (targets_T[:, None] == words_W[None]).astype(jnp.float32)
        d_logits_TW = d_out_T[:, None] * (ours_TW - jnp.exp(logits_TW - log_total_T[:, None]))
        [d_product_TW] = bend(jnp.where((words_W == _SEEN)[None], 0.0, d_logits_TW))
        d_product_TW = d_product_TW.astype(hidden_TD.dtype)
        d_head_DW = _product("td,tw->dw", hidden_TD, d_product_TW).astype(head_DV.dtype)
        d_head_DW += jax.lax.dynamic_slice_in_dim(d_head_DV, first, size, axis=1)
        return (
            d_hidden_TD + _product("tw,dw->td", d_product_TW, head_DW),
            jax.lax.dynamic_update_slice_in_dim(d_head_DV, d_head_DW, first, axis=1),
        )

    start = (jnp.zeros(hidden_TD.shape, jnp.float32), jnp.zeros_like(head_DV))
    d_hidden_TD, d_head_DV = jax.lax.fori_loop(0, count, add_block, start)
    return d_hidden_TD.astype(hidden_TD.dtype), d_head_DV, None


_logprobs.defvjp(_forward, _backward)


def _blocks(tokens: int, words: int, chunk: int) -> tuple[int, int]:
    """Returns the number of blocks, and the words of one, whose logits are no more than those of `chunk` tokens.

    Blocks are of about one size, so that the last one has few words of the one before.
    """
    if chunk >= tokens:
        return 1, words
    most = min(words, max(1, chunk * words // tokens // _ALIGNED) * _ALIGNED)
    count = -(-words // most)
    even = -(-words // (count * _ALIGNED)) * _ALIGNED
    return count, min(most, even)


def _block(head_DV: Array, i: Array, size: int) -> tuple[Array, Array, Array]:
    """Returns block i of the head, its words, and the first one; the last block has words `_SEEN` before as well."""
    first = jnp.minimum(i * size, head_DV.shape[1] - size)
    words_W = first + jnp.arange(size, dtype=jnp.int32)
    head_DW = jax.lax.dynamic_slice_in_dim(head_DV, first, size, axis=1)
    return head_DW, jnp.where(words_W < i * size, _SEEN, words_W), first


def _product(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b.astype(a.dtype), preferred_element_type=jnp.float32)
