"""Softmax attention with grouped key-value heads, a block of queries at a time.

Legend: B rows, L tokens, T queries of a block, U keys up to its end, H query heads, G key-value heads, R = H/G query
heads a key-value head, K head size. No array L x L exists: a block of queries meets only the keys up to its own end
(blocks in the future are skipped, not masked), and its scores are recomputed in the backward pass.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_BLOCK = 128
_MAX_BLOCKS = 16
_MASKED = -1e30  # finite, so that no difference of scores is NaN


def _blocks(length: int) -> list[tuple[int, int]]:
    """Starts and ends of the query blocks: 128 tokens each, longer ones where that would be more than 16."""
    size = max(_BLOCK, -(-length // _MAX_BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _split_heads(q_BLHK: Array, kv_heads: int) -> Array:
    """B L H K -> B G R L K: the products then run over contiguous matrices, which halves their time on a CPU."""
    b, length, h, k = q_BLHK.shape
    return q_BLHK.reshape(b, length, kv_heads, h // kv_heads, k).transpose(0, 2, 3, 1, 4)


def _merge_heads(x_BGRLK: Array) -> Array:
    b, g, r, length, k = x_BGRLK.shape
    return x_BGRLK.transpose(0, 3, 1, 2, 4).reshape(b, length, g * r, k)


@jax.checkpoint
def _attend(q_BGRTK: Float[Array, "B G R T K"], k_BGUK: Float[Array, "B G U K"], v_BGUK: Float[Array, "B G U K"],
            mask_BTU: Bool[Array, "B T U"]) -> Float[Array, "B G R T K"]:
    """Softmax in float32; its division comes after the product with the values, where there is less to divide."""
    scores_BGRTU = jnp.einsum("BGRTK,BGUK->BGRTU", q_BGRTK, k_BGUK, preferred_element_type=jnp.float32)
    scores_BGRTU = scores_BGRTU * q_BGRTK.shape[-1] ** -0.5 + jnp.where(mask_BTU, 0.0, _MASKED)[:, None, None]
    highest_BGRT1 = jax.lax.stop_gradient(jnp.max(scores_BGRTU, axis=-1, keepdims=True))
    weights_BGRTU = jnp.exp(scores_BGRTU - highest_BGRT1)
    out_BGRTK = jnp.einsum("BGRTU,BGUK->BGRTK", weights_BGRTU.astype(v_BGUK.dtype), v_BGUK,
                           preferred_element_type=jnp.float32)
    return (out_BGRTK / jnp.sum(weights_BGRTU, axis=-1, keepdims=True)).astype(q_BGRTK.dtype)


def packed_attention(q_BLHK: Float[Array, "B L H K"], k_BLGK: Float[Array, "B L G K"], v_BLGK: Float[Array, "B L G K"],
                     segments_BL: Int[Array, "B L"]) -> Float[Array, "B L H K"]:
    """Causal attention within each segment of a packed row; tokens of different segments do not see each other."""
    q_BGRLK = _split_heads(q_BLHK, k_BLGK.shape[2])
    k_BGLK, v_BGLK = k_BLGK.swapaxes(1, 2), v_BLGK.swapaxes(1, 2)
    outs = []
    for start, end in _blocks(q_BLHK.shape[1]):
        same_BTU = segments_BL[:, start:end, None] == segments_BL[:, None, :end]
        causal_TU = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :]
        outs.append(_attend(q_BGRLK[:, :, :, start:end], k_BGLK[:, :, :end], v_BGLK[:, :, :end],
                            same_BTU & causal_TU[None]))
    return _merge_heads(jnp.concatenate(outs, axis=3))
