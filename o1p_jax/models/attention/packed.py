"""Causal attention over packed rows: the one function that the decoder calls, which chooses an implementation.

On a TPU the splash kernel of tpu.py serves, for rows of other lengths with padding up to its tiles; the tiles of plain
JAX in tiled.py serve everywhere else. Both compute the same function, and either is run by each device on its own rows
and heads.

Legend: B rows, L tokens, S tokens of whole rows where rows are split over the mesh axis "context" (S = L where not), H
query heads, G key-value heads, K head size.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import free_axes, partition
from o1p_jax.devices.mesh import platform
from o1p_jax.models.attention.scoring import Scoring, window_of
from o1p_jax.models.attention.tiled import tiled_attention
from o1p_jax.models.attention.tpu import LEAST_BLOCK, kernel_spec, make_kernel, splash_attention
from o1p_jax.models.remat import KEPT


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
    """Returns the softmax attention of each token to the tokens of its segment up to itself; the softmax is in float32.

    A segment's tokens lie side by side; what padding (segment 0) gets means nothing. A token sees the last
    `windows[kind]` tokens, itself included; None means all of them. Without `scoring` the scale is K^-0.5. A head's
    sink is one more score for each of its queries, without a key or a value. Under a mesh, rows lie as "batch" and
    "length", queries as "heads", keys and values as "kv_heads" where the mesh divides these; else every device holds
    all of them.
    """
    scoring = scoring or Scoring(q_BLHK.shape[-1] ** -0.5)
    kind, free = jnp.asarray(kind, jnp.int32), free_axes()
    mesh, (_, length, heads, _) = jax.sharding.get_abstract_mesh(), q_BLHK.shape
    parts = {axis: mesh.shape[axis] if axis in free else 1 for axis in ("context", "tensor")}
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
    """The attention of one device's queries to the keys of whole rows, by the kernels if there are any."""
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
    window = window_of(windows, kind)
    return tiled_attention(q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS, first, window, scoring, sinks_H)


def _own_heads(x_BLGK: Array, heads: int) -> Array:
    """The key-value heads of this device's `heads` query heads, out of all key-value heads.

    There is one key-value head for each query head, unless all query heads of the device share a single one.
    """
    repeats = heads * jax.lax.axis_size("tensor") // x_BLGK.shape[2]
    first = jax.lax.axis_index("tensor") * heads
    if repeats % heads == 0:
        return jax.lax.dynamic_slice_in_dim(x_BLGK, first // repeats, 1, axis=2)
    return x_BLGK[:, :, (first + jnp.arange(heads)) // repeats]
