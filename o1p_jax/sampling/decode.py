"""What the embedded sampler runs on the devices: it fills prompts in, copies their rows, and decodes a few tokens.

Every data-parallel device works on rows (slots) of its own through `jax.shard_map`; the mesh axis "tensor" is left to
the compiler. Keys and values lie in two places: a large cache that a call of `decode` only reads, and a buffer of the
call's own tokens, which is written to the cache once at the call's end. Rows are read in groups, each only as far as
the group's longest row: the host names the slots in such an order that rows of like length are together.

Legend: B rows, N layers, G key-value heads, R query heads a key-value head, H = G*R, K head size, S cached positions, T
= STEPS tokens of a call, P prompt tokens, D devices, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt32

from o1p_jax.devices.axes import SAMPLING_AXES, SERVING_RULES, partition, sharding
from o1p_jax.models.attention.packed import packed_attention
from o1p_jax.models.attention.scoring import MASKED, Scoring, window_of
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import rules_for
from o1p_jax.models.precision import products_of
from o1p_jax.sampling.draw import Draw, draw_tokens, token_logprobs

STEPS = 8
"""How many tokens a row decodes in a call."""
_ROWS, _ROWS_SECOND = PartitionSpec(SAMPLING_AXES), PartitionSpec(None, SAMPLING_AXES)


class Cache(NamedTuple):
    """Keys and values; a head's positions lie side by side, so that its first positions are one stretch of memory."""

    k_NBGSK: Array
    v_NBGSK: Array

    @property
    def capacity(self) -> int:
        """How many positions a row can hold."""
        return self.k_NBGSK.shape[-2]


@dataclass(frozen=True)
class Layout:
    """What the compiled functions are specialised on."""

    graph: nnx.GraphDef
    mesh: Mesh
    dtype: DTypeLike
    group: int
    """Number of rows that are read to a common length; divides the number of rows that a device decodes."""

    def on_rows(self, f: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """The function `f`, run by every data-parallel device on its own rows."""
        f = products_of(self.dtype)(f)
        return jax.shard_map(
            f, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, axis_names=set(SAMPLING_AXES), check_vma=False
        )

    @staticmethod
    def of_params(params: nnx.State) -> nnx.State:
        """Where the weights lie along the axes of rows: an expert on its device, all other weights on every device."""

        def spec(weight: Any) -> Any:
            return weight.replace(partition(weight.get_metadata("logical_axes"), SERVING_RULES, SAMPLING_AXES))

        return jax.tree.map(spec, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def empty_cache(cfg: DecoderConfig, rows: int, capacity: int, layout: Layout) -> Cache:
    """Makes a cache for `rows` rows, those of all devices together."""
    shape = (cfg.layers, rows, cfg.kv_heads, capacity, cfg.head_dim)
    rules = rules_for(cfg, layout.mesh, SERVING_RULES)
    place = sharding(layout.mesh, ("layers", "batch", "kv_heads", "length", "head_dim"), rules)
    return Cache(jnp.zeros(shape, layout.dtype, device=place), jnp.zeros(shape, layout.dtype, device=place))


@partial(jax.jit, static_argnames="layout", donate_argnames="cache")
def prefill(
    params: nnx.State,
    cache: Cache,
    ids_BP: Int[Array, "B P"],
    lengths_B: Int[Array, "B"],
    slots_B: Int[Array, "B"],
    used_D: Int[Array, "D"],
    layout: Layout,
) -> Cache:
    """Writes the prompts' keys and values into the cache, from position 0 on.

    Each device takes the first `used_D` of its rows of `ids_BP`, of each row the first `lengths_B` tokens, and puts row
    b into `slots_B[b]` of the device's slots. A prompt has one more token, its last, which `decode` reads first.
    """

    def on_device(params, cache, ids_BP, lengths_B, slots_B, used_D):
        model = nnx.merge(layout.graph, params)
        positions_BP = jnp.broadcast_to(jnp.arange(ids_BP.shape[1])[None], ids_BP.shape)
        segments_BP = (positions_BP < lengths_B[:, None]).astype(jnp.int32)
        _, new = model.forward_cached(
            ids_BP,
            positions_BP,
            jnp.broadcast_to(lengths_B[:, None] + 1, ids_BP.shape),
            lambda q, k, v, sinks, kind, _: packed_attention(
                q, k, v, segments_BP, model.windows, kind, model.scoring, sinks, most_segments=1
            ),
            None,
            dtype=layout.dtype,
        )
        return _write(cache, _as_cached(new), slots_B, jnp.zeros_like(slots_B), used_D[0])

    return layout.on_rows(
        on_device, (layout.of_params(params), _ROWS_SECOND, _ROWS, _ROWS, _ROWS, _ROWS), _ROWS_SECOND
    )(params, cache, ids_BP, lengths_B, slots_B, used_D)


@partial(jax.jit, static_argnames=("size", "layout"), donate_argnames="cache")
def copy_rows(
    cache: Cache, from_B: Int[Array, "B"], to_B: Int[Array, "B"], used_D: Int[Array, "D"], size: int, layout: Layout
) -> Cache:
    """Copies the first `size` positions of each device's slots `from_B` to its slots `to_B`, of its first `used_D`."""

    def on_device(cache: Cache, from_B: Array, to_B: Array, used_D: Array) -> Cache:
        def copy(b: Array, cache: Cache) -> Cache:
            def put(a_NBGSK: Array) -> Array:
                n, _, g, _, k = a_NBGSK.shape
                row = jax.lax.dynamic_slice(a_NBGSK, (0, from_B[b], 0, 0, 0), (n, 1, g, size, k))
                return jax.lax.dynamic_update_slice(a_NBGSK, row, (0, to_B[b], 0, 0, 0))

            return jax.tree.map(put, cache)

        return jax.lax.fori_loop(0, used_D[0], copy, cache)

    return layout.on_rows(on_device, (_ROWS_SECOND, _ROWS, _ROWS, _ROWS), _ROWS_SECOND)(cache, from_B, to_B, used_D)


@partial(jax.jit, static_argnames=("draw", "layout"), donate_argnames="cache")
def decode(
    params: nnx.State,
    cache: Cache,
    tokens_B: Int[Array, "B"],
    lengths_B: Int[Array, "B"],
    counts_B: Int[Array, "B"],
    keys_B2: UInt32[Array, "B 2"],
    slots_B: Int[Array, "B"],
    draw: Draw,
    layout: Layout,
) -> tuple[Cache, Int[Array, "T B"], Float[Array, "T B"]]:
    """Returns the cache, the next T tokens of every row, and the log-probability of each (see `token_logprobs`).

    A row's keys and values lie in the slot `slots_B` of its device, which may have more slots than rows. `tokens_B` are
    the rows' last tokens, which are not yet in the cache; `lengths_B` is the number of tokens that are in it (0 in an
    idle row, whose output means nothing). Token number c of a completion is drawn with the row's key folded with c, so
    that a token does not depend on the rows beside its own; `counts_B` is the number of the first token of this call.
    """

    def on_device(params, cache, tokens_B, lengths_B, counts_B, keys_B2, slots_B):
        model = nnx.merge(layout.graph, params)
        head_DV = model.head_DV().astype(layout.dtype)
        rows = tokens_B.shape[0]
        n, _, g, _, k = cache.k_NBGSK.shape

        def step(carry, t):
            buffer, tokens_B = carry

            def attend(q_B1HK, k_B1GK, v_B1GK, sinks_H, kind, inputs):
                layer, buffer = inputs
                buffer = _append(buffer, (k_B1GK, v_B1GK), t)
                window = window_of(model.windows, kind)
                return _attention(
                    q_B1HK, cache, layer, slots_B, lengths_B, buffer, t, layout.group, window, model.scoring, sinks_H
                )

            place_B1 = (lengths_B + t)[:, None]
            hidden_B1D, new = model.forward_cached(
                tokens_B[:, None], place_B1, place_B1 + 1, attend, (jnp.arange(n), buffer), dtype=layout.dtype
            )
            product_BV = jnp.einsum("BD,DV->BV", hidden_B1D[:, 0], head_DV, preferred_element_type=jnp.float32)
            logits_BV = model.logits(product_BV)
            tokens_B = draw_tokens(logits_BV, keys_B2, counts_B + t, draw)
            return (_append(buffer, new, t), tokens_B), (tokens_B, token_logprobs(logits_BV, tokens_B))

        buffer = Cache(*[jnp.zeros((n, rows, g, STEPS, k), layout.dtype)] * 2)
        (buffer, _), drawn = jax.lax.scan(step, (buffer, tokens_B), jnp.arange(STEPS))
        return _write(cache, buffer, slots_B, lengths_B, rows), *drawn

    specs = (layout.of_params(params), _ROWS_SECOND, *[_ROWS] * 5)
    return layout.on_rows(on_device, specs, (_ROWS_SECOND,) * 3)(
        params, cache, tokens_B, lengths_B, counts_B, keys_B2, slots_B
    )


@partial(jax.jit, static_argnames="capacity", donate_argnames="cache")
def grow(cache: Cache, capacity: int) -> Cache:
    """Returns a cache of the same rows with room for `capacity` positions."""
    return jax.tree.map(lambda a: jnp.pad(a, ((0, 0),) * 3 + ((0, capacity - a.shape[-2]), (0, 0))), cache)


def bucket(n: int) -> int:
    """Returns the smallest of 0, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, ... that is at least `n`."""
    if n <= 64:
        return 64 * (n > 0)
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 and power > 128 else power


def buckets(n: int) -> list[int]:
    """Returns all of these lengths up to `bucket(n)`."""
    found = [0]
    while found[-1] < n:
        found.append(bucket(found[-1] + 1))
    return found


def _attention(
    q_B1HK: Array,
    cache: Cache,
    layer: Array,
    slots_B: Array,
    lengths_B: Array,
    buffer: Cache,
    t: Array,
    group: int,
    window: Array,
    scoring: Scoring,
    sinks_H: Array | None,
) -> Array:
    """Attention of one new token a row to its cached positions and to the buffer up to `t`.

    The rows are taken a group at a time, each group only as far as its longest row.
    """
    scale, softcap = scoring

    def score(q_BGRK: Array, keys_BGSK: Array, mask: Array) -> Array:
        scores = scale * jnp.einsum("BGRK,BGSK->BGRS", q_BGRK, keys_BGSK, preferred_element_type=jnp.float32)
        return jnp.where(mask, scores if softcap is None else softcap * jnp.tanh(scores / softcap), MASKED)

    b, _, h, k = q_B1HK.shape
    g = buffer.k_NBGSK.shape[-3]
    sizes = buckets(cache.capacity)
    ages_T = t - jnp.arange(buffer.k_NBGSK.shape[-2])
    in_buffer_T = (ages_T >= 0) & (ages_T < window)

    def to_length(size: int, slots_B: Array, lengths_B: Array, q_BGRK: Array, k_BGTK: Array, v_BGTK: Array) -> Array:
        def first_positions(a_NBGSK: Array) -> Array:
            def of_row(slot: Array) -> Array:
                return jax.lax.dynamic_slice(a_NBGSK, (layer, slot, 0, 0, 0), (1, 1, g, size, k))[0, 0]

            return jax.vmap(of_row)(slots_B)

        k_BGSK, v_BGSK = map(first_positions, cache)
        places_BS, ends_B1 = jnp.arange(size)[None], lengths_B[:, None]
        cached_BS = (places_BS < ends_B1) & (places_BS > ends_B1 + t - window)
        scores = [
            score(q_BGRK, k_BGSK, cached_BS[:, None, None]),
            score(q_BGRK, k_BGTK, in_buffer_T[None, None, None]),
        ]
        if sinks_H is not None:
            sinks_GR = sinks_H.astype(jnp.float32).reshape(g, h // g)
            scores.append(jnp.broadcast_to(sinks_GR[None, ..., None], (group, g, h // g, 1)))
        weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(q_BGRK.dtype)
        in_cache, in_buffer = weights[..., :size], weights[..., size : size + k_BGTK.shape[2]]
        return jnp.einsum("BGRS,BGSK->BGRK", in_cache, v_BGSK) + jnp.einsum("BGRT,BGTK->BGRK", in_buffer, v_BGTK)

    def of_group(inputs: tuple[Array, ...]) -> Array:
        which, *arrays = inputs
        return jax.lax.switch(which, [partial(to_length, size) for size in sizes], *arrays)

    def split(a: Array) -> Array:
        return a.reshape(b // group, group, *a.shape[1:])

    longest = jnp.max(split(lengths_B), axis=1)
    which = jnp.searchsorted(jnp.asarray(sizes), longest)
    arrays = (slots_B, lengths_B, q_B1HK.reshape(b, g, h // g, k), *buffer)
    return jax.lax.map(of_group, (which, *map(split, arrays))).reshape(b, 1, h, k)


def _append(buffer: Cache, new: tuple[Array, Array], t: Array) -> Cache:
    """The buffer with one token's keys and values at place `t`."""
    return jax.tree.map(
        partial(jax.lax.dynamic_update_slice_in_dim, start_index=t, axis=-2), Cache(*buffer), _as_cached(new)
    )


def _as_cached(new: tuple[Array, Array]) -> Cache:
    """New keys and values, axes ..., P, G, K, with the axes in the cache's order."""
    return Cache(*(jnp.moveaxis(a, -3, -2) for a in new))


def _write(cache: Cache, new: Cache, slots_B: Array, starts_B: Array, rows: Array | int) -> Cache:
    """Writes the first `rows` rows of `new` into the rows `slots_B` of the cache, from position `starts_B` on.

    The rows are written one by one, which is done in place.
    """

    def row(b: Array, cache: Cache) -> Cache:
        def put(whole_NBGSK: Array, new_NBGTK: Array) -> Array:
            new_N1GTK = jax.lax.dynamic_slice_in_dim(new_NBGTK, b, 1, axis=1)
            return jax.lax.dynamic_update_slice(whole_NBGSK, new_N1GTK, (0, slots_B[b], 0, starts_B[b], 0))

        return jax.tree.map(put, cache, new)

    return jax.lax.fori_loop(0, rows, row, cache)
