"""Attention on NVIDIA's H100, H200, B200 and the like by cuDNN's kernel for packed rows, a custom call of XLA's.

The kernel is told where each segment begins and how many tokens it has, so that nothing is computed between segments,
nor for padding. JAX's function for it asks this host's card what it can do and takes no derivative of the softmax's
sums; so its two primitives are called here as they are, which compiles for cards that are not there and gives sinks.

Legend: B rows, L tokens of whole rows, H query heads, G key-value heads, K head size, n segments of all rows: as many
as are told at most.
"""

import inspect
import os
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jaxtyping import Array, Bool, Float, Int

from o1p_jax.models.remat import keep

_CARDS = re.compile(r"\bG?(H(20|100|200|800)|B(100|200|300))\b")
"""The kinds of device whose cuDNN has the kernel."""
_DETERMINISTIC = re.compile(r"--xla_gpu_(deterministic_ops|exclude_nondeterministic_ops)(=(true|1))?(\s|$)")
_WORKSPACE = 2**31
"""Bytes that a call's backward pass may set aside: with more, the heads are computed part after part."""
_MOST_INT32 = 2**31 - 1


class Call(NamedTuple):
    """What is compiled into a call of the kernel."""

    scale: float
    window: int | None
    """How many tokens a token sees, itself included; None means all of its segment up to itself."""
    segments: int
    """The most segments a row, on average over a device's rows."""


def refusal(
    card: str, dtype: Any, softcap: float | None, rows: int, length: int, heads: int, head_dim: int,
    segments: int | None, context: int = 1,
) -> str | None:  # fmt: skip
    """Returns why the kernel can't serve a device's rows and heads; None where it can.

    `card` is the device's kind as JAX names it, `segments` the most segments a row, None where that is not known;
    `context` devices share the heads of whole rows of `length` tokens out.
    """
    if not _CARDS.search(card):
        return f"no kernel for packed rows on {card}"
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"no kernel in {jnp.dtype(dtype).name}"
    if softcap is not None:
        return "no kernel with a soft cap on scores"
    if head_dim % 8 or head_dim > 256:
        return f"no kernel for heads of {head_dim} numbers"
    if segments is None:
        return "the number of segments a row is not known"
    if heads % context:
        return f"{context} devices along context do not share {heads} heads out"
    if _DETERMINISTIC.search(os.environ.get("XLA_FLAGS", "")):
        return "XLA_FLAGS asks for deterministic operations, for which cuDNN would hold all scores"
    if _workspace(rows, length, 1, head_dim, segments) > 2 * _WORKSPACE:
        return f"up to {segments} segments in each of {rows} rows of {length} tokens are too many for the kernel"
    if rows * length * (heads // context) * head_dim > _MOST_INT32:
        return f"{rows} rows of {length} tokens and {heads} heads of {head_dim} numbers are too many for the kernel"
    return None


def workspace(rows: int, length: int, heads: int, head_dim: int, segments: int) -> int:
    """Returns the bytes that the kernel's backward pass sets aside beside its results, on a device.

    It adds up the queries' gradient in float32, in a row of `length` tokens for each segment. Source: cuDNN's frontend,
    CompositeSDPABackwardNode, without max_total_seq_len, which XLA does not tell.
    """
    return _workspace(rows, length, heads // _parts(rows, length, heads, head_dim, segments), head_dim, segments)


def _workspace(rows: int, length: int, heads: int, head_dim: int, segments: int) -> int:
    return 4 * rows * max(segments, 2) * length * heads * (head_dim + 1)


def _parts(rows: int, length: int, heads: int, head_dim: int, segments: int) -> int:
    """In how many parts the heads are computed one after another."""
    whole = _workspace(rows, length, heads, head_dim, segments)
    return next(n for n in range(1, heads + 1) if heads % n == 0 and (whole <= n * _WORKSPACE or n == heads))


def cudnn_attention(
    windows: tuple[int | None, ...],
    kind: Int[Array, ""],
    q_BLHK: Float[Array, "B L H K"],
    k_BLGK: Float[Array, "B L G K"],
    v_BLGK: Float[Array, "B L G K"],
    segments_BL: Int[Array, "B L"],
    scale: float,
    segments: int,
    sinks_H: Float[Array, "H"] | None,
) -> Float[Array, "B L H K"]:
    """Returns the attention of whole rows, 0 for padding; `kind` chooses one of the windows, which are the model's.

    Where the rows hold more segments than `segments` for each, the result is not a number: nothing is left out unsaid.
    """
    length = q_BLHK.shape[1]
    calls = [
        Call(scale, window if window is not None and window < length else None, max(segments, 2)) for window in windows
    ]
    arrays = (q_BLHK, k_BLGK, v_BLGK, segments_BL, sinks_H)
    if len(calls) == 1:
        return _attention(calls[0], *arrays)
    return jax.lax.switch(kind, [partial(_attention, call) for call in calls], *arrays)


class Places(NamedTuple):
    """Where the segments lie among the tokens of all rows, one row after another."""

    starts_n: Int[Array, "n"]
    """The place of a segment's first token; the number of tokens where there is no such segment."""
    lengths_n: Int[Array, "n"]
    number_BL: Int[Array, "B L"]
    """The number of each token's segment; n for padding."""
    within_BL: Int[Array, "B L"]
    """Each token's place in its segment."""
    complete: Bool[Array, ""]
    """Whether there are no more than n segments."""


def places_of(segments_BL: Int[Array, "B L"], segments: int) -> Places:
    """Returns where the segments lie, of which rows have up to `segments` each, or rather that many on average."""
    (b, length), n = segments_BL.shape, segments_BL.shape[0] * segments
    padded_BL = jnp.pad(segments_BL, ((0, 0), (1, 1)))
    real_BL, changes_BL = segments_BL > 0, padded_BL[:, 1:] != padded_BL[:, :-1]
    begins_T, ends_T = ((real_BL & changes_BL[:, i : i + length]).reshape(-1) for i in (0, 1))
    tokens = b * length
    starts_n = jnp.nonzero(begins_T, size=n, fill_value=tokens)[0].astype(jnp.int32)
    lasts_n = jnp.nonzero(ends_T, size=n, fill_value=tokens - 1)[0].astype(jnp.int32)
    number_T = jnp.cumsum(begins_T, dtype=jnp.int32) - 1
    number_T = jnp.where(real_BL.reshape(-1), number_T, n)
    within_T = jnp.arange(tokens, dtype=jnp.int32) - starts_n[jnp.minimum(number_T, n - 1)]
    return Places(
        starts_n, lasts_n + 1 - starts_n, number_T.reshape(b, length), within_T.reshape(b, length),
        jnp.sum(begins_T, dtype=jnp.int32) <= n,
    )  # fmt: skip


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    call: Call, q_BLHK: Array, k_BLGK: Array, v_BLGK: Array, segments_BL: Array, sinks_H: Array | None
) -> Array:
    return _forward(call, q_BLHK, k_BLGK, v_BLGK, segments_BL, sinks_H)[0]


def _forward(
    call: Call, q_BLHK: Array, k_BLGK: Array, v_BLGK: Array, segments_BL: Array, sinks_H: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """The attention and what its derivative needs."""
    places, real_BL11 = places_of(segments_BL, call.segments), (segments_BL > 0)[..., None, None]
    outs, sums = [], []
    for q_BLhK, k_BLhK, v_BLhK in _parts_of_heads(call, q_BLHK, *_for_each_query(q_BLHK, k_BLGK, v_BLGK)):
        out_BLhK, stats_nhL = kernel_forward(call, q_BLhK, k_BLhK, v_BLhK, *_told(places, q_BLhK))
        outs.append(out_BLhK)
        sums.append(stats_nhL.at[places.number_BL, :, places.within_BL].get(mode="fill", fill_value=0.0))
    out_BLHK, log_total_BLH = jnp.concatenate(outs, axis=2), jnp.concatenate(sums, axis=2)
    if sinks_H is not None:
        sinks_BLH = sinks_H.astype(jnp.float32)[None, None]
        shares_BLH = jax.nn.sigmoid(log_total_BLH - sinks_BLH)
        out_BLHK = (out_BLHK.astype(jnp.float32) * shares_BLH[..., None]).astype(q_BLHK.dtype)
        log_total_BLH = jnp.logaddexp(log_total_BLH, sinks_BLH)
    # The kernel writes nothing where there is padding.
    out_BLHK = jnp.where(real_BL11, jnp.where(places.complete, out_BLHK, jnp.nan), 0).astype(q_BLHK.dtype)
    out_BLHK, log_total_BLH = keep(out_BLHK), keep(log_total_BLH)
    return out_BLHK, (q_BLHK, k_BLGK, v_BLGK, segments_BL, sinks_H, out_BLHK, log_total_BLH)


def _backward(call: Call, saved: tuple[Any, ...], d_out_BLHK: Array) -> tuple[Array | None, ...]:
    """The derivatives by queries, keys, values and sinks.

    The kernel computes the weights again from scores and logarithms of their sums: where these hold the sinks as well,
    and the outputs too, its derivatives are those of the attention with sinks.
    """
    q_BLHK, k_BLGK, v_BLGK, segments_BL, sinks_H, out_BLHK, log_total_BLH = saved
    (b, length, h, _), g = q_BLHK.shape, k_BLGK.shape[2]
    places, real_BL11 = places_of(segments_BL, call.segments), (segments_BL > 0)[..., None, None]
    d_out_BLHK = jnp.where(real_BL11, d_out_BLHK, 0)
    stats_nHL = jnp.zeros((b * call.segments, h, length), jnp.float32)
    stats_nHL = stats_nHL.at[places.number_BL, :, places.within_BL].set(log_total_BLH, mode="drop", unique_indices=True)
    keys_values = _for_each_query(q_BLHK, k_BLGK, v_BLGK)
    parts, first = [], 0
    for q_BLhK, k_BLhK, v_BLhK, out_BLhK, d_out_BLhK in _parts_of_heads(
        call, q_BLHK, *keys_values, out_BLHK, d_out_BLHK
    ):
        heads = slice(first, first := first + q_BLhK.shape[2])
        told = _told(places, q_BLhK)
        parts.append(kernel_backward(call, q_BLhK, k_BLhK, v_BLhK, stats_nHL[:, heads], out_BLhK, d_out_BLhK, *told))
    d_q, d_k, d_v = (jnp.where(real_BL11, jnp.concatenate(x, axis=2), 0) for x in zip(*parts, strict=True))
    d_k, d_v = (
        jnp.sum(d.reshape(b, length, g, h // g, -1), axis=3, dtype=jnp.float32).astype(q_BLHK.dtype) for d in (d_k, d_v)
    )
    if sinks_H is None:
        return d_q, d_k, d_v, None, None
    mean_BLH = jnp.sum(out_BLHK.astype(jnp.float32) * d_out_BLHK.astype(jnp.float32), axis=-1)
    weights_BLH = jnp.exp(sinks_H.astype(jnp.float32)[None, None] - log_total_BLH)
    d_sinks_H = -jnp.sum(jnp.where(real_BL11[..., 0], weights_BLH * mean_BLH, 0), axis=(0, 1))
    return d_q, d_k, d_v, None, d_sinks_H.astype(sinks_H.dtype)


_attention.defvjp(_forward, _backward)


def _for_each_query(q_BLHK: Array, k_BLGK: Array, v_BLGK: Array) -> list[Array]:
    """Keys and values once for each query head.

    JAX before 0.11.1 tells the kernel wrong places of fewer heads; and the kernel would set aside gradients of keys and
    values for each query head, in a whole row for each segment.
    """
    repeats = q_BLHK.shape[2] // k_BLGK.shape[2]
    return [jnp.repeat(x, repeats, axis=2) if repeats > 1 else x for x in (k_BLGK, v_BLGK)]


def _parts_of_heads(call: Call, *arrays: Array) -> zip:
    """The heads of the arrays, in parts."""
    b, length, h, k = arrays[0].shape
    parts = _parts(b, length, h, k, call.segments)
    return zip(*(jnp.split(x, parts, axis=2) for x in arrays), strict=True)


def _told(places: Places, q_BLhK: Array) -> tuple[Array, Array]:
    """Lengths [B, M] and offsets [B, M+1] as the kernel wants them.

    The segments of all rows come first, whatever their rows, then those that are not there, of length 0 at the end. An
    offset is a place in memory: tokens times the numbers of a token.
    """
    b, length, h, k = q_BLhK.shape
    lengths_BM = places.lengths_n.reshape(b, -1)
    starts = jnp.pad(places.starts_n, (0, b), constant_values=b * length)
    return lengths_BM, (starts * (h * k)).reshape(b, -1)


def kernel_forward(
    call: Call, q_BLHK: Array, k_BLHK: Array, v_BLHK: Array, lengths_BM: Array, offsets_BN: Array
) -> tuple[Array, Array]:
    """The kernel: its output, and for each segment and head the logarithms of the sums of exponentials [B*M, H, L].

    What lies past a segment's length is not written.
    """
    none = jnp.zeros(0, q_BLHK.dtype)
    out_BLHK, stats_nHL = cudnn._dot_product_attention_fwd_p.bind(
        q_BLHK, k_BLHK, v_BLHK, none, lengths_BM, lengths_BM, offsets_BN, offsets_BN, none, none,
        **_compiled_in(call), is_training=True,
    )  # fmt: skip
    return out_BLHK, stats_nHL


def kernel_backward(
    call: Call, q_BLHK: Array, k_BLHK: Array, v_BLHK: Array, stats_nHL: Array, out_BLHK: Array, d_out_BLHK: Array,
    lengths_BM: Array, offsets_BN: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The kernel's derivatives by queries, keys and values; what lies past a segment's length is not written."""
    none = jnp.zeros(0, q_BLHK.dtype)
    d_q, d_k, d_v = cudnn._dot_product_attention_bwd_p.bind(
        q_BLHK, k_BLHK, v_BLHK, none, lengths_BM, lengths_BM, offsets_BN, offsets_BN, none, none, stats_nHL, out_BLHK,
        d_out_BLHK, **_compiled_in(call),
    )  # fmt: skip
    return d_q, d_k, d_v


def _compiled_in(call: Call) -> dict[str, Any]:
    """The parameters that JAX's primitives for the kernel take."""
    newer = "score_mod" in inspect.signature(cudnn.dot_product_attention).parameters  # from JAX 0.11 on
    return {
        "scale": call.scale, "seed": 0, "dropout_rate": 0.0, "variadic_args": (False, False),
        "mask_type": cudnn.MaskType.PADDING_CAUSAL, "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": call.window, **({"score_mod_name": None, "score_mod_jaxpr": None} if newer else {}),
    }  # fmt: skip
