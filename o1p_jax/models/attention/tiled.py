"""Attention in plain JAX, a tile of scores at a time (FlashAttention, arXiv 2205.14135 and 2307.08691).

For each tile of queries a loop runs over the tiles of keys that it can see: what lies in the future, before all of the
tile's segments or before its window costs nothing, and no array S x S exists, forward or backward.

Legend: B rows, L tokens, S tokens of whole rows where rows are split over the mesh axis "context" (S = L where not); n
tiles of queries, m of keys, T queries or U keys of a tile; H query heads, G key-value heads, R = H/G query heads a
key-value head, K head size.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from o1p_jax.devices.mesh import platform
from o1p_jax.models.attention.scoring import MASKED, Scoring
from o1p_jax.models.remat import keep

_TILES = {"gpu": 512}
"""The most queries or keys of a tile by platform: on a GPU each of a loop's turns costs several kernels' start."""
_TILE = 128
"""The same elsewhere."""


def tiled_attention(
    q_BLHK: Float[Array, "B L H K"],
    k_BSGK: Float[Array, "B S G K"],
    v_BSGK: Float[Array, "B S G K"],
    segments_BL: Int[Array, "B L"],
    segments_BS: Int[Array, "B S"],
    first: Int[Array, ""],
    window: Int[Array, ""],
    scoring: Scoring,
    sinks_H: Float[Array, "H"] | None,
) -> Float[Array, "B L H K"]:
    """Returns the attention of L queries to the keys of whole rows; the first query stands at place `first` of its row.

    A query sees keys of its own segment, up to itself, within the last `window` tokens. A head's sink is one more
    score. What padding (segment 0) attends to means nothing.
    """
    b, length, h, k = q_BLHK.shape
    g = k_BSGK.shape[2]
    n = -(-length // _TILES.get(platform(), _TILE))
    size = -(-length // n)

    def tiles(x: Array) -> Array:
        """B L ... -> n B T ..."""
        count = -(-x.shape[1] // size)
        x = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(b, count, size, *x.shape[2:]), 1, 0)

    q_nBGRTK = tiles(q_BLHK).reshape(n, b, size, g, h // g, k).transpose(0, 1, 3, 4, 2, 5)
    k_mBGUK, v_mBGUK = (tiles(x).swapaxes(2, 3) for x in (k_BSGK, v_BSGK))
    sinks_GR = None if sinks_H is None else sinks_H.astype(jnp.float32).reshape(g, h // g)
    view = _View(tiles(segments_BL), tiles(segments_BS), first, window, _reach(segments_BS, first, window, n, size))
    out_nBGRTK = _attention(scoring, q_nBGRTK, k_mBGUK, v_mBGUK, view, sinks_GR)
    return out_nBGRTK.transpose(1, 0, 4, 2, 3, 5).reshape(b, n * size, h, k)[:, :length]


class _View(NamedTuple):
    """What each query may see: the segments of queries and keys, the places in the row, and the tiles within reach."""

    segments_nBT: Array
    """The segments of the queries."""
    segments_mBU: Array
    """The segments of the keys."""
    first: Array
    """The place of the first query in its row."""
    window: Array
    """How many tokens a query sees, itself included."""
    reach_n2: Array
    """For each tile of queries, the first tile of keys that is seen and the one after the last."""


def _reach(segments_BS: Array, first: Array, window: Array, n: int, size: int) -> Array:
    """For each tile of queries, the first tile of keys that one of its queries sees, and the one after the last."""
    places_S = jnp.arange(segments_BS.shape[1], dtype=jnp.int32)
    begins_BS = jnp.pad(segments_BS[:, 1:] != segments_BS[:, :-1], ((0, 0), (1, 0)))
    starts_BS = jax.lax.cummax(jnp.where(begins_BS, places_S[None], 0), axis=1)
    starts_BS = jnp.where(segments_BS == 0, places_S[None], starts_BS)  # padding looks no further than its own tile
    queries_n = first + size * jnp.arange(n, dtype=jnp.int32)
    low_n = jnp.maximum(jnp.min(starts_BS, axis=0)[queries_n], queries_n - window + 1) // size
    high_n = jnp.minimum((queries_n + size - 1) // size + 1, -(-segments_BS.shape[1] // size))
    return jnp.stack([low_n, high_n], axis=1)


def _scores(scoring: Scoring, q_BGRTK: Array, k_BGUK: Array, view: _View, i: Array, j: Array) -> tuple[Array, Array]:
    """The masked float32 scores of tile i's queries and tile j's keys, and the scores' derivative by the products."""
    size = q_BGRTK.shape[-2]
    places = jnp.arange(size)
    distance_TU = (view.first + i * size + places)[:, None] - (j * size + places)[None, :]
    mask_BTU = view.segments_nBT[i][:, :, None] == view.segments_mBU[j][:, None, :]
    mask_BTU &= ((distance_TU >= 0) & (distance_TU < view.window))[None]
    scores_BGRTU = scoring.scale * jnp.einsum("BGRTK,BGUK->BGRTU", q_BGRTK, k_BGUK, preferred_element_type=jnp.float32)
    slope: Array = jnp.full((1,) * 5, scoring.scale, jnp.float32)
    if scoring.softcap is not None:
        bent_BGRTU = jnp.tanh(scores_BGRTU / scoring.softcap)
        scores_BGRTU, slope = scoring.softcap * bent_BGRTU, scoring.scale * (1 - bent_BGRTU * bent_BGRTU)
    return scores_BGRTU + jnp.where(mask_BTU, 0.0, MASKED)[:, None, None], slope


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    scoring: Scoring, q_nBGRTK: Array, k_mBGUK: Array, v_mBGUK: Array, view: _View, sinks_GR: Array | None
) -> Array:
    """The attention over tiles, with a derivative of its own."""
    return _forward(scoring, q_nBGRTK, k_mBGUK, v_mBGUK, view, sinks_GR)[0]


def _forward(
    scoring: Scoring, q_nBGRTK: Array, k_mBGUK: Array, v_mBGUK: Array, view: _View, sinks_GR: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """The attention and what its derivative needs: a softmax over the tiles of keys seen so far.

    Of each query the highest score, the sum and the weighted values are kept, and rescaled as the highest score rises.
    """
    flat = jnp.zeros(q_nBGRTK.shape[1:-1], jnp.float32)
    highest, total = flat + MASKED, flat
    if sinks_GR is not None:  # what is seen first
        highest, total = flat + sinks_GR[None, :, :, None], flat + 1

    def queries(tile: tuple[Array, ...]) -> tuple[Array, Array]:
        i, q_BGRTK, reach_2 = tile

        def keys(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            highest, total, values = carry
            scores_BGRTU, _ = _scores(scoring, q_BGRTK, k_mBGUK[j], view, i, j)
            raised = jnp.maximum(highest, jnp.max(scores_BGRTU, axis=-1))
            weights_BGRTU = jnp.exp(scores_BGRTU - raised[..., None])
            shrink = jnp.exp(highest - raised)
            new = jnp.einsum(
                "BGRTU,BGUK->BGRTK", weights_BGRTU.astype(v_mBGUK.dtype), v_mBGUK[j], preferred_element_type=jnp.float32
            )
            return raised, total * shrink + jnp.sum(weights_BGRTU, axis=-1), values * shrink[..., None] + new

        start = (highest, total, jnp.zeros(q_BGRTK.shape, jnp.float32))
        top, sums, values = jax.lax.fori_loop(reach_2[0], reach_2[1], keys, start)
        return (values / sums[..., None]).astype(q_BGRTK.dtype), top + jnp.log(sums)

    out_nBGRTK, log_total_nBGRT = jax.lax.map(queries, (jnp.arange(len(q_nBGRTK)), q_nBGRTK, view.reach_n2))
    out_nBGRTK, log_total_nBGRT = keep(out_nBGRTK), keep(log_total_nBGRT)
    return out_nBGRTK, (q_nBGRTK, k_mBGUK, v_mBGUK, view, sinks_GR, out_nBGRTK, log_total_nBGRT)


def _backward(scoring: Scoring, saved: tuple[Any, ...], d_out_nBGRTK: Array) -> tuple[Array | None, ...]:
    """The derivatives by queries, keys, values and sinks; the scores of each tile are computed again."""
    q_nBGRTK, k_mBGUK, v_mBGUK, view, sinks_GR, out_nBGRTK, log_total_nBGRT = saved
    dtype = q_nBGRTK.dtype
    mean_nBGRT = jnp.sum(out_nBGRTK.astype(jnp.float32) * d_out_nBGRTK.astype(jnp.float32), axis=-1)

    def product(equation: str, a: Array, b: Array) -> Array:
        return jnp.einsum(equation, a.astype(dtype), b, preferred_element_type=jnp.float32)

    def queries(d_keys: tuple[Array, Array], tile: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        i, reach_2, q_BGRTK, d_out_BGRTK, mean_BGRT, log_total_BGRT = tile

        def keys(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            d_q, d_k, d_v = carry
            scores_BGRTU, slope = _scores(scoring, q_BGRTK, k_mBGUK[j], view, i, j)
            weights_BGRTU = jnp.exp(scores_BGRTU - log_total_BGRT[..., None])
            d_weights_BGRTU = product("BGRTK,BGUK->BGRTU", d_out_BGRTK, v_mBGUK[j])
            d_scores_BGRTU = weights_BGRTU * (d_weights_BGRTU - mean_BGRT[..., None]) * slope
            return (
                d_q + product("BGRTU,BGUK->BGRTK", d_scores_BGRTU, k_mBGUK[j]),
                d_k.at[j].add(product("BGRTU,BGRTK->BGUK", d_scores_BGRTU, q_BGRTK)),
                d_v.at[j].add(product("BGRTU,BGRTK->BGUK", weights_BGRTU, d_out_BGRTK)),
            )

        start = (jnp.zeros(q_BGRTK.shape, jnp.float32), *d_keys)
        d_q, d_k, d_v = jax.lax.fori_loop(reach_2[0], reach_2[1], keys, start)
        return (d_k, d_v), d_q.astype(dtype)

    zeros = (jnp.zeros(k_mBGUK.shape, jnp.float32), jnp.zeros(v_mBGUK.shape, jnp.float32))
    tiles = (jnp.arange(len(q_nBGRTK)), view.reach_n2, q_nBGRTK, d_out_nBGRTK, mean_nBGRT, log_total_nBGRT)
    (d_k, d_v), d_q = jax.lax.scan(queries, zeros, tiles)
    if sinks_GR is None:
        return d_q, d_k.astype(dtype), d_v.astype(dtype), None, None
    weights_nBGRT = jnp.exp(sinks_GR[None, None, :, :, None] - log_total_nBGRT)
    d_sinks_GR = -jnp.sum(weights_nBGRT * mean_nBGRT, axis=(0, 1, 4))
    return d_q, d_k.astype(dtype), d_v.astype(dtype), None, d_sinks_GR


_attention.defvjp(_forward, _backward)
