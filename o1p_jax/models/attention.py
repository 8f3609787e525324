"""Softmax attention with grouped key-value heads, a block of queries at a time.

Legend: B rows, L tokens, S cached tokens, T queries of a block, H query heads, G key-value heads, R = H/G query heads a
key-value head, K head size. No array L x L exists: a block of queries sees only the keys up to its own end (the blocks
in the future are skipped, not masked), and its scores are recomputed in the backward pass.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_BLOCK = 128
_MAX_BLOCKS = 16
_MASKED = -1e30  # finite: a query without any key (padding) gets a mean instead of NaN


def _attend(q_BTHK: Float[Array, "B T H K"], k_BSGK: Float[Array, "B S G K"], v_BSGK: Float[Array, "B S G K"],
            mask_BTS: Bool[Array, "B T S"]) -> Float[Array, "B T H K"]:
    b, t, h, k = q_BTHK.shape
    g = k_BSGK.shape[2]
    q_BTGRK = q_BTHK.reshape(b, t, g, h // g, k)
    scores_BGRTS = jnp.einsum("BTGRK,BSGK->BGRTS", q_BTGRK, k_BSGK, preferred_element_type=jnp.float32) * k**-0.5
    scores_BGRTS = jnp.where(mask_BTS[:, None, None], scores_BGRTS, _MASKED)
    weights_BGRTS = jax.nn.softmax(scores_BGRTS, axis=-1).astype(v_BSGK.dtype)
    return jnp.einsum("BGRTS,BSGK->BTGRK", weights_BGRTS, v_BSGK).reshape(b, t, h, k)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Starts and ends of the query blocks: 128 tokens each, longer ones where that would be more than 16."""
    size = max(_BLOCK, -(-length // _MAX_BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def packed_attention(q_BLHK: Float[Array, "B L H K"], k_BLGK: Float[Array, "B L G K"], v_BLGK: Float[Array, "B L G K"],
                     segments_BL: Int[Array, "B L"]) -> Float[Array, "B L H K"]:
    """Causal attention within each segment of a packed row; tokens of different segments do not see each other."""
    block_attention = jax.checkpoint(_attend)
    outs = []
    for start, end in _blocks(q_BLHK.shape[1]):
        mask_BTS = segments_BL[:, start:end, None] == segments_BL[:, None, :end]
        causal_TS = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :]
        outs.append(block_attention(q_BLHK[:, start:end], k_BLGK[:, :end], v_BLGK[:, :end], mask_BTS & causal_TS[None]))
    return jnp.concatenate(outs, axis=1)


def cached_attention(q_BLHK: Float[Array, "B L H K"], k_BLGK: Float[Array, "B L G K"], v_BLGK: Float[Array, "B L G K"],
                     cached_k_BSGK: Float[Array, "B S G K"], cached_v_BSGK: Float[Array, "B S G K"],
                     positions_BL: Int[Array, "B L"]) -> Float[Array, "B L H K"]:
    """Attention of new tokens to what is cached before the row's first new position, and to each other.

    The cache is only read here, so that a decode loop writes the few new keys in place once a step. `positions_BL`
    rise by one within a row; -1 marks padding. Cache entries at or past the first new position are ignored: a slot may
    hold an older sequence.
    """
    valid_BL = positions_BL >= 0
    first_B = jnp.min(jnp.where(valid_BL, positions_BL, jnp.iinfo(jnp.int32).max), axis=1)
    cached_BS = jnp.arange(cached_k_BSGK.shape[1])[None, :] < first_B[:, None]
    outs = []
    for start, end in _blocks(q_BLHK.shape[1]):
        block_BT = positions_BL[:, start:end]
        new_BTS = (block_BT[:, :, None] >= positions_BL[:, None, :end]) & valid_BL[:, None, :end]
        old_BTS = jnp.broadcast_to(cached_BS[:, None], (*block_BT.shape, cached_BS.shape[1]))
        outs.append(_attend(q_BLHK[:, start:end], jnp.concatenate([cached_k_BSGK, k_BLGK[:, :end]], axis=1),
                            jnp.concatenate([cached_v_BSGK, v_BLGK[:, :end]], axis=1),
                            jnp.concatenate([old_BTS, new_BTS], axis=2)))
    return jnp.concatenate(outs, axis=1)
