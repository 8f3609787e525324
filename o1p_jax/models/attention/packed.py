"""Causal attention over packed rows: the one function that the decoder calls, which chooses an implementation.

On a TPU the splash kernel of tpu.py serves, for rows of other lengths with padding up to its tiles; on NVIDIA's newer
cards cuDNN's kernel of gpu.py, where it can; the tiles of plain JAX in tiled.py serve everywhere else. All compute the
same function, and each is run by every device on its own rows and heads.

Legend: B rows, L tokens, S tokens of whole rows where rows are split over the mesh axis "context" (S = L where not), H
query heads, G key-value heads, K head size, h and g a device's heads where it holds whole rows instead.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import DATA_AXES, free_axes, partition
from o1p_jax.devices.mesh import card, platform
from o1p_jax.models.attention.gpu import cudnn_attention, refusal, workspace
from o1p_jax.models.attention.scoring import Scoring, window_of
from o1p_jax.models.attention.tiled import tiled_attention
from o1p_jax.models.attention.tpu import LEAST_BLOCK, kernel_spec, make_kernel, splash_attention
from o1p_jax.models.remat import KEPT

CUDNN = "cuDNN's kernel for packed rows"


def packed_attention(
    q_BLHK: Float[Array, "B L H K"],
    k_BLGK: Float[Array, "B L G K"],
    v_BLGK: Float[Array, "B L G K"],
    segments_BL: Int[Array, "B L"],
    windows: tuple[int | None, ...] = (None,),
    kind: Int[Array, ""] | int = 0,
    scoring: Scoring | None = None,
    sinks_H: Float[Array, "H"] | None = None,
    most_segments: int | None = None,
) -> Float[Array, "B L H K"]:
    """Returns the softmax attention of each token to the tokens of its segment up to itself; the softmax is in float32.

    A segment's tokens lie side by side; what padding (segment 0) gets means nothing. A token sees the last
    `windows[kind]` tokens, itself included; None means all of them. Without `scoring` the scale is K^-0.5. A head's
    sink is one more score for each of its queries, without a key or a value. `most_segments` is the most segments that
    a row may have; on a GPU no kernel serves where it is left out. Under a mesh, rows lie as "batch" and "length",
    queries as "heads", keys and values as "kv_heads" where the mesh divides these; else every device holds all of them.
    """
    scoring = scoring or Scoring(q_BLHK.shape[-1] ** -0.5)
    kind, free = jnp.asarray(kind, jnp.int32), free_axes()
    mesh, (_, length, heads, _) = jax.sharding.get_abstract_mesh(), q_BLHK.shape
    parts = _devices_along(free)
    kernels: tuple = ()
    if platform() == "tpu":
        if missing := -length % (LEAST_BLOCK * parts["context"]):

            def pad(x: Array) -> Array:
                return jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))

            q_BLHK, k_BLGK, v_BLGK, segments_BL = map(pad, (q_BLHK, k_BLGK, v_BLGK, segments_BL))
            padded = packed_attention(q_BLHK, k_BLGK, v_BLGK, segments_BL, windows, kind, scoring, sinks_H)
            return padded[:, :length]
        kernels = tuple(
            make_kernel(
                length, heads, window, scoring.softcap, name=KEPT, head_shards=parts["tensor"],
                row_shards=parts["context"],
            )
            for window in windows
        )  # fmt: skip
    split = k_BLGK.shape[2] % parts["tensor"] == 0
    cudnn = served(q_BLHK.dtype, scoring.softcap, q_BLHK.shape, most_segments).by == CUDNN
    device = partial(
        _on_device, scoring=scoring, windows=windows, split=split, context=parts["context"],
        segments=most_segments if cudnn else None,
    )  # fmt: skip
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


class Served(NamedTuple):
    """What serves attention."""

    by: str
    """In words, for people."""
    workspace: int = 0
    """Bytes of a device that the implementation sets aside unknown to XLA's compiler."""


def served(dtype: Any, softcap: float | None, queries: tuple[int, ...], most_segments: int | None) -> Served:
    """Returns what serves queries of the shape [B, L, H, K] on the mesh in use, and why no kernel does."""
    if platform() == "tpu":
        return Served("the splash kernel")
    because = f"no kernel on {platform()}"
    if platform() == "gpu":
        (rows, length, heads, head_dim), parts = queries, _devices_along(free_axes())
        rows, heads, context = rows // parts["batch"], heads // parts["tensor"], parts["context"]
        because = refusal(card(), dtype, softcap, rows, length, heads, head_dim, most_segments, context) or ""
        if not because and most_segments is not None:
            return Served(CUDNN, workspace(rows, length, heads // context, head_dim, most_segments))
    return Served(f"a loop over tiles ({because})")


def _devices_along(free: tuple[str, ...]) -> dict[str, int]:
    """The number of devices that rows ("batch"), tokens and heads are split over by the axes `free`."""
    shape = jax.sharding.get_abstract_mesh().shape
    along = {axis: shape[axis] for axis in free}
    return {"batch": math.prod(along.get(axis, 1) for axis in DATA_AXES)} | {
        axis: along.get(axis, 1) for axis in ("context", "tensor")
    }


def _on_device(
    q_BLHK: Array, k_BLGK: Array, v_BLGK: Array, segments_BL: Array, kind: Array, sinks_H: Array | None,
    kernels: tuple, *, scoring: Scoring, windows: tuple[int | None, ...], split: bool,
    context: int, segments: int | None,
) -> Array:  # fmt: skip
    """The attention of one device's queries to the keys of whole rows, by the kernels if there are any.

    `segments` is the most segments a row where cuDNN's kernel serves.
    """
    if not split:
        k_BLGK, v_BLGK = (_own_heads(x, q_BLHK.shape[2], "tensor") for x in (k_BLGK, v_BLGK))
    if segments is not None:
        served = partial(cudnn_attention, windows, kind, scale=scoring.scale, segments=segments)
        return (_in_whole_rows(served, context) if context > 1 else served)(
            q_BLHK, k_BLGK, v_BLGK, segments_BL, sinks_H=sinks_H
        )
    k_BSGK, v_BSGK, segments_BS, first = k_BLGK, v_BLGK, segments_BL, jnp.int32(0)
    if context > 1:
        k_BSGK, v_BSGK, segments_BS = (_whole_rows(x) for x in (k_BLGK, v_BLGK, segments_BL))
        first = jax.lax.axis_index("context") * q_BLHK.shape[1]
    if kernels:
        return splash_attention(kernels, kind, q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS, scoring.scale, sinks_H)
    window = window_of(windows, kind)
    return tiled_attention(q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS, first, window, scoring, sinks_H)


def _in_whole_rows(attention: Callable[..., Array], context: int) -> Callable[..., Array]:
    """The attention of parts of rows, by one that wants whole rows (DeepSpeed-Ulysses, arXiv 2309.14509).

    The devices along "context" exchange parts of rows with all heads for whole rows with a part of the heads, and back.
    """
    rows_for_heads = partial(jax.lax.all_to_all, axis_name="context", split_axis=2, concat_axis=1, tiled=True)
    heads_for_rows = partial(jax.lax.all_to_all, axis_name="context", split_axis=1, concat_axis=2, tiled=True)

    def exchanged(q_BLHK: Array, k_BLGK: Array, v_BLGK: Array, segments_BL: Array, *, sinks_H: Array | None) -> Array:
        own = q_BLHK.shape[2] // context
        if k_BLGK.shape[2] % context == 0:
            k_BSgK, v_BSgK = map(rows_for_heads, (k_BLGK, v_BLGK))
        else:
            k_BSgK, v_BSgK = (_own_heads(_whole_rows(x), own, "context") for x in (k_BLGK, v_BLGK))
        if sinks_H is not None:
            sinks_H = jax.lax.dynamic_slice_in_dim(sinks_H, jax.lax.axis_index("context") * own, own)
        out_BShK = attention(rows_for_heads(q_BLHK), k_BSgK, v_BSgK, _whole_rows(segments_BL), sinks_H=sinks_H)
        return heads_for_rows(out_BShK)

    return exchanged


def _whole_rows(x_BL: Array) -> Array:
    """What the devices along "context" hold of their rows, put together."""
    return jax.lax.all_gather(x_BL, "context", axis=1, tiled=True)


def _own_heads(x_BLGK: Array, heads: int, axis: str) -> Array:
    """The key-value heads of this device's `heads` query heads, which lie along the mesh axis `axis`, out of all.

    There is one key-value head for each query head, unless all query heads of the device share a single one.
    """
    repeats = heads * jax.lax.axis_size(axis) // x_BLGK.shape[2]
    first = jax.lax.axis_index(axis) * heads
    if repeats % heads == 0:
        return jax.lax.dynamic_slice_in_dim(x_BLGK, first // repeats, 1, axis=2)
    return x_BLGK[:, :, (first + jnp.arange(heads)) // repeats]
