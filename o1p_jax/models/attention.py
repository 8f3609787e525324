"""Causal attention over packed rows, a tile of scores at a time (FlashAttention, arXiv 2205.14135 and 2307.08691).

Legend: B rows, L tokens, n tiles along a row, T queries or U keys of a tile (the same number), H query heads, G
key-value heads, R = H/G query heads a key-value head, K head size. One loop runs over the pairs (tile of queries, tile
of keys) that causality leaves: tiles in the future cost nothing, and no array L x L exists, forward or backward. An
unrolled loop would save no memory, because a compiler is free to hold all its tiles at once.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

KEPT = "kept"
"""`checkpoint_name` of what the backward pass needs and should not compute again."""
_TILE = 128
_MASKED = -1e30  # finite, so that no difference of scores is NaN


class Scoring(NamedTuple):
    """How the product of a query and a key becomes a score."""

    scale: float
    softcap: float | None = None
    """c of c * tanh(scale * product / c)."""


def packed_attention(
    q_BLHK: Float[Array, "B L H K"],
    k_BLGK: Float[Array, "B L G K"],
    v_BLGK: Float[Array, "B L G K"],
    segments_BL: Int[Array, "B L"],
    window: Int[Array, ""] | None = None,
    scoring: Scoring | None = None,
    sinks_H: Float[Array, "H"] | None = None,
) -> Float[Array, "B L H K"]:
    """Softmax attention to the tokens of the same segment up to each token's own place; softmax in float32.

    A token sees the last `window` tokens, itself included, or all if it is left out; without `scoring` the scale is
    K^-0.5. A head's sink is one more score for each of its queries, without a key or a value.
    """
    b, length, h, k = q_BLHK.shape
    g = k_BLGK.shape[2]
    n = -(-length // _TILE)
    size = -(-length // n)

    def tiles(x: Array) -> Array:
        """B L ... -> n B T ..."""
        x = jnp.pad(x, ((0, 0), (0, n * size - length), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(b, n, size, *x.shape[2:]), 1, 0)

    q_nBGRTK = tiles(q_BLHK).reshape(n, b, size, g, h // g, k).transpose(0, 1, 3, 4, 2, 5)
    k_nBGUK, v_nBGUK = (tiles(x).swapaxes(2, 3) for x in (k_BLGK, v_BLGK))
    scoring = scoring or Scoring(k**-0.5)
    span = jnp.int32(length) if window is None else window
    sinks_GR = None if sinks_H is None else sinks_H.astype(jnp.float32).reshape(g, h // g)
    out_nBGRTK = _attention(scoring, q_nBGRTK, k_nBGUK, v_nBGUK, tiles(segments_BL), span, sinks_GR)
    return out_nBGRTK.transpose(1, 0, 4, 2, 3, 5).reshape(b, n * size, h, k)[:, :length]


def _pairs(n: int) -> tuple[Array, Array]:
    queries, keys = np.tril_indices(n)
    return jnp.asarray(queries), jnp.asarray(keys)


def _scores(
    scoring: Scoring, q_BGRTK: Array, k_BGUK: Array, segments_nBT: Array, window: Array, i: Array, j: Array
) -> tuple[Array, Array]:
    """Scores of tile i's queries and tile j's keys, float32, masked; and their derivative by the product."""
    size = segments_nBT.shape[-1]
    places = jnp.arange(size)
    distance_TU = (i * size + places)[:, None] - (j * size + places)[None, :]
    mask_BTU = segments_nBT[i][:, :, None] == segments_nBT[j][:, None, :]
    mask_BTU &= ((distance_TU >= 0) & (distance_TU < window))[None]
    scores_BGRTU = scoring.scale * jnp.einsum("BGRTK,BGUK->BGRTU", q_BGRTK, k_BGUK, preferred_element_type=jnp.float32)
    slope: Array = jnp.full((1,) * 5, scoring.scale, jnp.float32)
    if scoring.softcap is not None:
        bent_BGRTU = jnp.tanh(scores_BGRTU / scoring.softcap)
        scores_BGRTU, slope = scoring.softcap * bent_BGRTU, scoring.scale * (1 - bent_BGRTU * bent_BGRTU)
    return scores_BGRTU + jnp.where(mask_BTU, 0.0, _MASKED)[:, None, None], slope


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    scoring: Scoring,
    q_nBGRTK: Array,
    k_nBGUK: Array,
    v_nBGUK: Array,
    segments_nBT: Array,
    window: Array,
    sinks_GR: Array | None,
) -> Array:
    return _forward(scoring, q_nBGRTK, k_nBGUK, v_nBGUK, segments_nBT, window, sinks_GR)[0]


def _forward(
    scoring: Scoring,
    q_nBGRTK: Array,
    k_nBGUK: Array,
    v_nBGUK: Array,
    segments_nBT: Array,
    window: Array,
    sinks_GR: Array | None,
) -> tuple[Array, tuple[Any, ...]]:
    """Softmax over the tiles of keys seen so far: highest score, sum and weighted values, rescaled as it rises."""

    def tile(carry: tuple[Array, ...], pair: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        i, j = pair
        highest, total, values = (x[i] for x in carry)
        scores_BGRTU, _ = _scores(scoring, q_nBGRTK[i], k_nBGUK[j], segments_nBT, window, i, j)
        raised = jnp.maximum(highest, jnp.max(scores_BGRTU, axis=-1))
        weights_BGRTU = jnp.exp(scores_BGRTU - raised[..., None])
        shrink = jnp.exp(highest - raised)
        new = jnp.einsum(
            "BGRTU,BGUK->BGRTK", weights_BGRTU.astype(v_nBGUK.dtype), v_nBGUK[j], preferred_element_type=jnp.float32
        )
        tile_carry = (raised, total * shrink + jnp.sum(weights_BGRTU, axis=-1), values * shrink[..., None] + new)
        return tuple(x.at[i].set(y) for x, y in zip(carry, tile_carry, strict=True)), None

    flat = jnp.zeros(q_nBGRTK.shape[:-1], jnp.float32)
    highest, total = flat + _MASKED, flat
    if sinks_GR is not None:  # what is seen first
        highest, total = flat + sinks_GR[None, None, :, :, None], flat + 1
    start: tuple[Array, ...] = (highest, total, jnp.zeros(q_nBGRTK.shape, jnp.float32))
    (highest, total, values), _ = jax.lax.scan(tile, start, _pairs(len(q_nBGRTK)))
    out_nBGRTK = checkpoint_name((values / total[..., None]).astype(q_nBGRTK.dtype), KEPT)
    log_total_nBGRT = checkpoint_name(highest + jnp.log(total), KEPT)
    return out_nBGRTK, (q_nBGRTK, k_nBGUK, v_nBGUK, segments_nBT, window, sinks_GR, out_nBGRTK, log_total_nBGRT)


def _backward(scoring: Scoring, saved: tuple[Any, ...], d_out_nBGRTK: Array) -> tuple[Array | None, ...]:
    q_nBGRTK, k_nBGUK, v_nBGUK, segments_nBT, window, sinks_GR, out_nBGRTK, log_total_nBGRT = saved
    dtype = q_nBGRTK.dtype
    mean_nBGRT = jnp.sum(out_nBGRTK.astype(jnp.float32) * d_out_nBGRTK.astype(jnp.float32), axis=-1)

    def product(equation: str, a: Array, b: Array) -> Array:
        return jnp.einsum(equation, a.astype(dtype), b, preferred_element_type=jnp.float32)

    def tile(carry: tuple[Array, ...], pair: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        i, j = pair
        d_q, d_k, d_v = carry
        scores_BGRTU, slope = _scores(scoring, q_nBGRTK[i], k_nBGUK[j], segments_nBT, window, i, j)
        weights_BGRTU = jnp.exp(scores_BGRTU - log_total_nBGRT[i][..., None])
        d_weights_BGRTU = product("BGRTK,BGUK->BGRTU", d_out_nBGRTK[i], v_nBGUK[j])
        d_scores_BGRTU = weights_BGRTU * (d_weights_BGRTU - mean_nBGRT[i][..., None]) * slope
        return (
            d_q.at[i].add(product("BGRTU,BGUK->BGRTK", d_scores_BGRTU, k_nBGUK[j])),
            d_k.at[j].add(product("BGRTU,BGRTK->BGUK", d_scores_BGRTU, q_nBGRTK[i])),
            d_v.at[j].add(product("BGRTU,BGRTK->BGUK", weights_BGRTU, d_out_nBGRTK[i])),
        ), None

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q_nBGRTK, k_nBGUK, v_nBGUK))
    gradients, _ = jax.lax.scan(tile, start, _pairs(len(q_nBGRTK)))
    d_q, d_k, d_v = (x.astype(dtype) for x in gradients)
    if sinks_GR is None:
        return d_q, d_k, d_v, None, None, None
    weights_nBGRT = jnp.exp(sinks_GR[None, None, :, :, None] - log_total_nBGRT)
    return d_q, d_k, d_v, None, None, -jnp.sum(weights_nBGRT * mean_nBGRT, axis=(0, 1, 4))


_attention.defvjp(_forward, _backward)
