"""One product of stretches of rows, each with a matrix of its own.

On a TPU the product is `jax.lax.ragged_dot`. Elsewhere that function multiplies every row with every matrix, so a loop
over tiles of rows takes its place, with as many turns as there are tiles.

Legend: P rows, E groups of rows, D inputs, F outputs, T rows of a tile.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def grouped_product(
    x_PD: Float[Array, "P D"], w_EDF: Float[Array, "E D F"], sizes_E: Int[Array, "E"], tile: int
) -> Float[Array, "P F"]:
    """Returns the first sizes[0] rows times w[0], the next sizes[1] rows times w[1], and so on.

    The result is 0 for rows past the last group, accumulated in float32, and in the type of `x`. `tile` is the number
    of rows of a tile.
    """
    return _product(x_PD, w_EDF, sizes_E, tile, 1)


def _product(x_PD: Array, w_EDF: Array, sizes_E: Array, tile: int, over: int) -> Array:
    """`grouped_product`, contracting axis `over` of the matrices."""
    dims = jax.lax.RaggedDotDimensionNumbers((((1,), (over,)), ((), ())), [0], [0])

    def ragged(x_PD: Array, w_EDF: Array, sizes_E: Array) -> Array:
        return jax.lax.ragged_dot_general(x_PD, w_EDF, sizes_E, dims, preferred_element_type=jnp.float32)

    def tiled(x_PD: Array, w_EDF: Array, sizes_E: Array) -> Array:
        count, at = _tiles(sizes_E, tile)
        padded_PD = jnp.pad(x_PD, ((0, tile), (0, 0)))

        def turn(i: Array, out_PF: Array) -> Array:
            e, start, _ = at(i)
            x_TD = jax.lax.dynamic_slice_in_dim(padded_PD, start, tile)
            out_TF = jax.lax.dot_general(
                x_TD, w_EDF[e], (((1,), (over - 1,)), ((), ())), preferred_element_type=jnp.float32
            )
            # What a tile writes beyond its group's end is overwritten by the next group.
            return jax.lax.dynamic_update_slice_in_dim(out_PF, out_TF, start, 0)

        out_PF = jnp.zeros((len(padded_PD), w_EDF.shape[3 - over]), jnp.float32)
        return jax.lax.fori_loop(0, count, turn, out_PF)[: len(x_PD)]

    out_PF = jax.lax.platform_dependent(x_PD, w_EDF, sizes_E, tpu=ragged, default=tiled)
    in_groups_P = jnp.arange(len(x_PD)) < jnp.sum(sizes_E)
    return jnp.where(in_groups_P[:, None], out_PF, 0.0).astype(x_PD.dtype)


def _backward(tile: int, saved: tuple[Array, ...], d_out_PF: Array) -> tuple[Array, Array, None]:
    """The derivatives by rows and matrices; there is none by the groups' sizes."""
    x_PD, w_EDF, sizes_E = saved
    dims = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])

    def ragged(x_PD: Array, d_out_PF: Array, sizes_E: Array) -> Array:
        return jax.lax.ragged_dot_general(x_PD, d_out_PF, sizes_E, dims, preferred_element_type=jnp.float32)

    def tiled(x_PD: Array, d_out_PF: Array, sizes_E: Array) -> Array:
        count, at = _tiles(sizes_E, tile)
        padded = [jnp.pad(a, ((0, tile), (0, 0))) for a in (x_PD, d_out_PF)]

        def turn(i: Array, d_w_EDF: Array) -> Array:
            e, start, end = at(i)
            x_TD, d_out_TF = (jax.lax.dynamic_slice_in_dim(a, start, tile) for a in padded)
            d_out_TF = jnp.where((start + jnp.arange(tile) < end)[:, None], d_out_TF, 0)
            return d_w_EDF.at[e].add(
                jax.lax.dot_general(x_TD, d_out_TF, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
            )

        return jax.lax.fori_loop(0, count, turn, jnp.zeros(w_EDF.shape, jnp.float32))

    d_w_EDF = jax.lax.platform_dependent(x_PD, d_out_PF, sizes_E, tpu=ragged, default=tiled)
    return _product(d_out_PF, w_EDF, sizes_E, tile, 2), d_w_EDF.astype(w_EDF.dtype), None


grouped_product.defvjp(lambda x, w, sizes, tile: (grouped_product(x, w, sizes, tile), (x, w, sizes)), _backward)


def _tiles(sizes_E: Array, tile: int) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """The number of tiles, and a function from a tile's number to its group, its first row, and its group's end."""
    tiles_E = -(-sizes_E // tile)
    last_E, ends_E = jnp.cumsum(tiles_E), jnp.cumsum(sizes_E)

    def at(i: Array) -> tuple[Array, Array, Array]:
        e = jnp.searchsorted(last_E, i, side="right")
        return e, ends_E[e] - sizes_E[e] + (i - last_E[e] + tiles_E[e]) * tile, ends_E[e]

    return last_E[-1], at
