"""Attention on TPUs by the splash kernel of JAX's Pallas, which never writes scores to the chip's main memory.

A kernel knows at compile time which tiles causality and window leave, so each window of a model has a kernel of its
own.

Legend: B rows, L a device's queries, S keys of whole rows, H query heads, G key-value heads, K head size.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

LEAST_BLOCK = 128
_BLOCKS = (1024, 512, 256, LEAST_BLOCK)
"""Sizes of a tile; the first that divides the length is taken. Larger tiles don't fit the chip's vector memory."""


def block_size(*lengths: int) -> int | None:
    """Returns the tile's size for rows of these lengths; None where the kernel can't serve."""
    return next((size for size in _BLOCKS if all(length % size == 0 for length in lengths)), None)


@lru_cache
def make_kernel(
    length: int, heads: int, window: int | None, softcap: float | None, *, head_shards: int, row_shards: int,
    name: str, interpret: bool = False,
) -> splash.SplashAttentionKernel:  # fmt: skip
    """Returns the kernel for whole rows of `length` tokens and all heads, to be split over devices.

    `name` is the `checkpoint_name` of what the backward pass needs; `interpret` runs the kernel on any platform,
    slowly.
    """
    size = block_size(length // row_shards, length)
    assert size is not None
    # Not the fused backward kernel: it holds the queries' gradient once for each tile of keys.
    mask: masks.Mask = masks.CausalMask((length, length), shard_count=row_shards)
    if window is not None and window < length:
        mask = masks.LocalMask((length, length), (window - 1, 0), offset=0, shard_count=row_shards)
    sizes = splash.BlockSizes(
        block_q=size, block_kv=size, block_kv_compute=min(size, 512), block_q_dkv=size, block_kv_dkv=size,
        block_kv_dkv_compute=min(size, 512), block_q_dq=size, block_kv_dq=size,
    )  # fmt: skip
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha(
            masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=head_shards, q_seq_shards=row_shards,
            attn_logits_soft_cap=softcap, residual_checkpoint_name=name, interpret=interpret,
        )  # fmt: skip


def kernel_spec(kernel: splash.SplashAttentionKernel, mesh: Any, heads: Any, length: Any) -> Any:
    """Returns where the kernel's tables of tiles lie, for `jax.shard_map`."""
    return kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(heads, length)))


def splash_attention(
    kernels: tuple[splash.SplashAttentionKernel, ...],
    kind: Int[Array, ""],
    q_BLHK: Float[Array, "B L H K"],
    k_BSGK: Float[Array, "B S G K"],
    v_BSGK: Float[Array, "B S G K"],
    segments_BL: Int[Array, "B L"],
    segments_BS: Int[Array, "B S"],
    scale: float,
    sinks_H: Float[Array, "H"] | None,
) -> Float[Array, "B L H K"]:
    """Returns the attention of a device's queries and heads to the keys of whole rows.

    `kind` chooses one of the kernels, which are those of the model's windows.
    """

    def run(kernel: splash.SplashAttentionKernel, *arrays: Array) -> Array:
        def row(q_LHK: Array, k_SGK: Array, v_SGK: Array, segments_L: Array, segments_S: Array) -> Array:
            heads_first = (x.swapaxes(0, 1) for x in (q_LHK, k_SGK, v_SGK))
            out_HLK: Any = kernel(*heads_first, splash.SegmentIds(segments_L, segments_S), sinks=sinks_H)
            return out_HLK.swapaxes(0, 1)

        return jax.vmap(row)(*arrays)

    q_BLHK = q_BLHK * jnp.asarray(scale, q_BLHK.dtype)
    arrays = (q_BLHK, k_BSGK, v_BSGK, segments_BL, segments_BS)
    if len(kernels) == 1:
        return run(kernels[0], *arrays)
    return jax.lax.switch(kind, [partial(run, kernel) for kernel in kernels], *arrays)
