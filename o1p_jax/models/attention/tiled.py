"""Causal attention over packed rows, a tile of scores at a time (FlashAttention, arXiv 2205.14135 and 2307.08691).

Legend: B rows, L tokens, S tokens of whole rows where they are split over the mesh axis "context" (S = L where not); n
tiles of queries, m of keys, T queries or U keys of a tile; H query heads, G key-value heads, R = H/G query heads a
key-value head, K head size. For each tile of queries a loop runs over the tiles of keys that it can see: what lies in
the future, before all of its segments or before its window costs nothing, and no array S x S exists, forward or
backward. On TPUs the kernel of splash.py does the same.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import free_axes, partition, platform
from o1p_jax.models.attention.tpu import block_size, kernel_spec, make_kernel, splash_attention

KEPT = "kept"
"""`checkpoint_name` of what the backward pass needs and should not compute again."""
_TILE = 128
_UNLIMITED = 2**30
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
    windows: tuple[int | None, ...] = (None,),
    kind: Int[Array, ""] | int = 0,
    scoring: Scoring | None = None,
    sinks_H: Float[Array, "H"] | None = None,
) -> Float[Array, "B L H K"]:
    """Softmax attention to the tokens of the same segment up to each token's own place; softmax in float32.

    A segment's tokens lie side by side. A token sees the last `windows[kind]` tokens, itself included; None is all of
    them. Without `scoring` the scale is K^-0.5. A head's sink is one more score for each of its queries, without a key
    or a value. Under a mesh, rows lie as "batch" and "length", queries as "heads", keys and values as "kv_heads" where
    the mesh divides these, else whole.
    """
    scoring = scoring or Scoring(q_BLHK.shape[-1] ** -0.5)
    kind, free = jnp.asarray(kind, jnp.int32), free_axes()
    mesh, (_, length, heads, _) = jax.sharding.get_abstract_mesh(), q_BLHK.shape
    parts = {axis: mesh.shape[axis] if axis in free else 1 for axis in ("context", "tensor")}
    kernels: tuple = ()
    if platform() == "tpu" and block_size(length // parts["context"], length):
        kernels = tuple(
            make_kernel(
                length, heads, window, scoring.softcap, name=KEPT, head_shards=parts["tensor"],
                row_shards=parts["context"],
            )
            for window in windows
        )  # fmt: skip
    split = k_BLGK.shape[2] % parts["tensor"] == 0
    device = partial(_on_device, scoring=scoring, windows=windows, split=split, context=parts["context"] > 1)
    arrays = (q_BLHK, k_BLGK, v_BLGK, segments_BL, kind, sinks_H, kernels)
    if not free:
        return device(*arrays)

    def place(*logical_axes: str | None) -> PartitionSpec:
        return partition(logical_axes, mesh_axes=free)

    queries = place("batch", "length", "heads", "head_dim")
    keys = queries if split else place("batch", "length", None, None)
    sinks = None if sinks_H is None else place("heads")
    tables = tuple(kernel_spec(kernel, mesh, queries[2], queries[1]) for kernel in kernels)
    return jax.shard_map(
        device,
        in_specs=(queries, keys, keys, place("batch", "length"), place(), sinks, tables),
        out_specs=queries,
        axis_names=set(free),
        check_vma=False,
    )(*arrays)


def _on_device(
    q_BLHK: Array, k_BLGK: Array, v_BLGK: Array, segments_BL: Array, kind: Array, sinks_H: Array | None,
    kernels: tuple, *, scoring: Scoring, windows: tuple[int | None, ...], split: bool,
    context: bool,
) -> Array:  # fmt: skip
    """One device's queries, to the keys of whole rows."""
    if not split:
        k_BLGK, v_BLGK = (_own_heads(x, q_BLHK.shape[2]) for x in (k_BLGK, v_BLGK))
    k_BSGK, v_BSGK, segments_BS, first = k_BLGK, v_BLGK, segments_BL, jnp.int32(0)
    if context:
        k_BSGK, v_BSGK, segments_BS = (
            jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k_BLGK, v_BLGK, segments_BL)
        )
        first = jax.lax.axis_index("context") * q_BLHK.shape[1]
    if kernels:
        return splash_attention(kernels, kind, q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS, scoring.scale, sinks_H)
    window = jnp.array([window or _UNLIMITED for window in windows], jnp.int32)[kind]
    return _blockwise(q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS, first, window, scoring, sinks_H)


def _own_heads(x_BLGK: Array, heads: int) -> Array:
    """Of all key-value heads those of this device's `heads` query heads, one for each if they share no single one."""
    repeats = heads * jax.lax.axis_size("tensor") // x_BLGK.shape[2]
    first = jax.lax.axis_index("tensor") * heads
    if repeats % heads == 0:
        return jax.lax.dynamic_slice_in_dim(x_BLGK, first // repeats, 1, axis=2)
    return x_BLGK[:, :, (first + jnp.arange(heads)) // repeats]


def _blockwise(
    q_BLHK: Array, k_BSGK: Array, v_BSGK: Array, segments_BL: Array, segments_BS: Array, first: Array, window: Array,
    scoring: Scoring, sinks_H: Array | None,
) -> Array:  # fmt: skip
    """Attention of queries whose first stands at place `first` of the rows of keys."""
    b, length, h, k = q_BLHK.shape
    g = k_BSGK.shape[2]
    n = -(-length // _TILE)
    size = -(-length // n)

    def tiles(x: Array) -> Array:
        """B L ... -> n B T ..."""
        count = -(-x.shape[1] // size)
        x = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(b, count, size, *x.shape[2:]), 1, 0)

    q_nBGRTK = tiles(q_BLHK).reshape(n, b, size, g, h // g, k).transpose(0, 1, 3, 4, 2, 5)
    k_mBGUK, v_mBGUK = (tiles(x).swapaxes(2, 3) for x in (k_BSGK, v_BSGK))
    sinks_GR = None if sinks_H is None else sinks_H.astype(jnp.float32).reshape(g, h // g)
    place = _Place(tiles(segments_BL), tiles(segments_BS), first, window, _reach(segments_BS, first, window, n, size))
    out_nBGRTK = _attention(scoring, q_nBGRTK, k_mBGUK, v_mBGUK, place, sinks_GR)
    return out_nBGRTK.transpose(1, 0, 4, 2, 3, 5).reshape(b, n * size, h, k)[:, :length]


class _Place(NamedTuple):
    """Where queries and keys stand in their rows."""

    segments_nBT: Array
    segments_mBU: Array
    first: Array
    window: Array
    reach_n2: Array


def _reach(segments_BS: Array, first: Array, window: Array, n: int, size: int) -> Array:
    """For each tile of queries, the first tile of keys that one of them sees, and the one after the last."""
    places_S = jnp.arange(segments_BS.shape[1], dtype=jnp.int32)
    begins_BS = jnp.pad(segments_BS[:, 1:] != segments_BS[:, :-1], ((0, 0), (1, 0)))
    starts_BS = jax.lax.cummax(jnp.where(begins_BS, places_S[None], 0), axis=1)
    queries_n = first + size * jnp.arange(n, dtype=jnp.int32)
    low_n = jnp.maximum(jnp.min(starts_BS, axis=0)[queries_n], queries_n - window + 1) // size
    high_n = jnp.minimum((queries_n + size - 1) // size + 1, -(-segments_BS.shape[1] // size))
    return jnp.stack([low_n, high_n], axis=1)


def _scores(scoring: Scoring, q_BGRTK: Array, k_BGUK: Array, place: _Place, i: Array, j: Array) -> tuple[Array, Array]:
    """Scores of tile i's queries and tile j's keys, float32, masked; and their derivative by the product."""
    size = q_BGRTK.shape[-2]
    places = jnp.arange(size)
    distance_TU = (place.first + i * size + places)[:, None] - (j * size + places)[None, :]
    mask_BTU = place.segments_nBT[i][:, :, None] == place.segments_mBU[j][:, None, :]
    mask_BTU &= ((distance_TU >= 0) & (distance_TU < place.window))[None]
    scores_BGRTU = scoring.scale * jnp.einsum("BGRTK,BGUK->BGRTU", q_BGRTK, k_BGUK, preferred_element_type=jnp.float32)
    slope: Array = jnp.full((1,) * 5, scoring.scale, jnp.float32)
    if scoring.softcap is not None:
        bent_BGRTU = jnp.tanh(scores_BGRTU / scoring.softcap)
        scores_BGRTU, slope = scoring.softcap * bent_BGRTU, scoring.scale * (1 - bent_BGRTU * bent_BGRTU)
    return scores_BGRTU + jnp.where(mask_BTU, 0.0, _MASKED)[:, None, None], slope


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    scoring: Scoring, q_nBGRTK: Array, k_mBGUK: Array, v_mBGUK: Array, place: _Place, sinks_GR: Array | None
) -> Array:
    return _forward(scoring, q_nBGRTK, k_mBGUK, v_mBGUK, place, sinks_GR)[0]


def _forward(
    scoring: Scoring, q_nBGRTK: Array, k_mBGUK: Array, v_mBGUK: Array, place: _Place, sinks_GR: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """Softmax over the tiles of keys seen so far: highest score, sum and weighted values, rescaled as it rises."""
    flat = jnp.zeros(q_nBGRTK.shape[1:-1], jnp.float32)
    highest, total = flat + _MASKED, flat
    if sinks_GR is not None:  # what is seen first
        highest, total = flat + sinks_GR[None, :, :, None], flat + 1

    def queries(tile: tuple[Array, ...]) -> tuple[Array, Array]:
        i, q_BGRTK, reach_2 = tile

        def keys(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            highest, total, values = carry
            scores_BGRTU, _ = _scores(scoring, q_BGRTK, k_mBGUK[j], place, i, j)
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

    out_nBGRTK, log_total_nBGRT = jax.lax.map(queries, (jnp.arange(len(q_nBGRTK)), q_nBGRTK, place.reach_n2))
    out_nBGRTK, log_total_nBGRT = checkpoint_name(out_nBGRTK, KEPT), checkpoint_name(log_total_nBGRT, KEPT)
    return out_nBGRTK, (q_nBGRTK, k_mBGUK, v_mBGUK, place, sinks_GR, out_nBGRTK, log_total_nBGRT)


def _backward(scoring: Scoring, saved: tuple[Any, ...], d_out_nBGRTK: Array) -> tuple[Array | None, ...]:
    q_nBGRTK, k_mBGUK, v_mBGUK, place, sinks_GR, out_nBGRTK, log_total_nBGRT = saved
    dtype = q_nBGRTK.dtype
    mean_nBGRT = jnp.sum(out_nBGRTK.astype(jnp.float32) * d_out_nBGRTK.astype(jnp.float32), axis=-1)

    def product(equation: str, a: Array, b: Array) -> Array:
        return jnp.einsum(equation, a.astype(dtype), b, preferred_element_type=jnp.float32)

    def queries(d_keys: tuple[Array, Array], tile: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        i, reach_2, q_BGRTK, d_out_BGRTK, mean_BGRT, log_total_BGRT = tile

        def keys(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            d_q, d_k, d_v = carry
            scores_BGRTU, slope = _scores(scoring, q_BGRTK, k_mBGUK[j], place, i, j)
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
    tiles = (jnp.arange(len(q_nBGRTK)), place.reach_n2, q_nBGRTK, d_out_nBGRTK, mean_nBGRT, log_total_nBGRT)
    (d_k, d_v), d_q = jax.lax.scan(queries, zeros, tiles)
    if sinks_GR is None:
        return d_q, d_k.astype(dtype), d_v.astype(dtype), None, None
    weights_nBGRT = jnp.exp(sinks_GR[None, None, :, :, None] - log_total_nBGRT)
    d_sinks_GR = -jnp.sum(weights_nBGRT * mean_nBGRT, axis=(0, 1, 4))
    return d_q, d_k.astype(dtype), d_v.astype(dtype), None, d_sinks_GR


_attention.defvjp(_forward, _backward)
