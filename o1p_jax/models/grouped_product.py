"""One product of stretches of rows, each with a matrix of its own.

On a TPU the product is `jax.lax.ragged_dot`. Elsewhere that function multiplies every row with every matrix, so a loop
over tiles of rows takes its place, with as many turns as there are tiles; on a GPU, which a tile leaves idle, a turn
takes several tiles at once, each with its matrix.

Legend: P rows, E groups of rows, D inputs, F outputs, T rows of a tile, S tiles of a turn.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_AT_ONCE = {"cuda": 16, "rocm": 16, "default": 1}
"""S by platform: 16 tiles of 512 rows and 768 outputs are three blocks of 128 x 128 for each processor of an H100."""


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

    def tiled(at_once: int, x_PD: Array, w_EDF: Array, sizes_E: Array) -> Array:
        turns, tiles_of = _tiles(sizes_E, tile, at_once)
        rows_of = _slices(x_PD, tile)

        def turn(i: Array, out_PF: Array) -> Array:
            tiles = tiles_of(i)
            out_STF = jax.lax.dot_general(
                rows_of(tiles.start_S), w_EDF[tiles.group_S], (((2,), (over,)), ((0,), (0,))),
                preferred_element_type=jnp.float32,
            )  # fmt: skip
            if at_once > 1:
                return out_PF.at[tiles.rows_ST].set(out_STF, mode="drop", unique_indices=True)
            # A CPU copies a slice faster; what is written beyond the group's end is overwritten by the next group.
            return jax.lax.dynamic_update_slice_in_dim(out_PF, out_STF[0], tiles.start_S[0], 0)

        out_PF = jnp.zeros((len(x_PD) + tile, w_EDF.shape[3 - over]), jnp.float32)
        return jax.lax.fori_loop(0, turns, turn, out_PF)[: len(x_PD)]

    out_PF = _by_platform(ragged, tiled, x_PD, w_EDF, sizes_E)
    in_groups_P = jnp.arange(len(x_PD)) < jnp.sum(sizes_E)
    return jnp.where(in_groups_P[:, None], out_PF, 0.0).astype(x_PD.dtype)


def _backward(tile: int, saved: tuple[Array, ...], d_out_PF: Array) -> tuple[Array, Array, None]:
    """The derivatives by rows and matrices; there is none by the groups' sizes."""
    x_PD, w_EDF, sizes_E = saved
    dims = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])

    def ragged(x_PD: Array, d_out_PF: Array, sizes_E: Array) -> Array:
        return jax.lax.ragged_dot_general(x_PD, d_out_PF, sizes_E, dims, preferred_element_type=jnp.float32)

    def tiled(at_once: int, x_PD: Array, d_out_PF: Array, sizes_E: Array) -> Array:
        turns, tiles_of = _tiles(sizes_E, tile, at_once)
        rows_of, d_rows_of = _slices(x_PD, tile), _slices(d_out_PF, tile)

        def turn(i: Array, d_w_EDF: Array) -> Array:
            tiles = tiles_of(i)
            d_out_STF = jnp.where((tiles.rows_ST < len(x_PD))[..., None], d_rows_of(tiles.start_S), 0)
            d_w_SDF = jax.lax.dot_general(
                rows_of(tiles.start_S), d_out_STF, (((1,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32
            )
            return d_w_EDF.at[tiles.group_S].add(d_w_SDF, mode="drop")

        return jax.lax.fori_loop(0, turns, turn, jnp.zeros(w_EDF.shape, jnp.float32))

    d_w_EDF = _by_platform(ragged, tiled, x_PD, d_out_PF, sizes_E)
    return _product(d_out_PF, w_EDF, sizes_E, tile, 2), d_w_EDF.astype(w_EDF.dtype), None


grouped_product.defvjp(lambda x, w, sizes, tile: (grouped_product(x, w, sizes, tile), (x, w, sizes)), _backward)


def _slices(x_PD: Array, tile: int) -> Callable[[Array], Array]:
    """A function from the first rows of tiles to the tiles [S, T, D]."""
    padded_PD = jnp.pad(x_PD, ((0, tile), (0, 0)))
    return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(padded_PD, start, tile))


def _by_platform(ragged: Callable[..., Array], tiled: Callable[..., Array], *arrays: Array) -> Array:
    """What the platform prefers, that the program is compiled for."""
    loops = {platform: partial(tiled, at_once) for platform, at_once in _AT_ONCE.items()}
    return jax.lax.platform_dependent(*arrays, tpu=ragged, **loops)


class _Tiles(NamedTuple):
    """The tiles of a turn."""

    group_S: Array
    """The tiles' groups; E or more for a tile that is not there."""
    start_S: Array
    """The tiles' first rows."""
    rows_ST: Array
    """The tiles' rows; far more than P for one that is not the group's, each another number."""


def _tiles(sizes_E: Array, tile: int, at_once: int) -> tuple[Array, Callable[[Array], _Tiles]]:
    """The number of turns, and a function from a turn's number to its tiles."""
    tiles_E = -(-sizes_E // tile)
    last_E, ends_E = jnp.cumsum(tiles_E), jnp.cumsum(sizes_E)

    def of(i: Array) -> _Tiles:
        number_S = i * at_once + jnp.arange(at_once, dtype=jnp.int32)
        e_S = jnp.searchsorted(last_E, number_S, side="right", method="compare_all").astype(jnp.int32)
        start_S = ends_E[e_S] - sizes_E[e_S] + (number_S - last_E[e_S] + tiles_E[e_S]) * tile
        rows_ST = start_S[:, None] + jnp.arange(tile, dtype=jnp.int32)[None]
        there_ST = (rows_ST < ends_E[e_S][:, None]) & (number_S < last_E[-1])[:, None]
        nowhere = jnp.iinfo(jnp.int32).max - jnp.arange(at_once * tile, dtype=jnp.int32).reshape(at_once, tile)
        return _Tiles(e_S, start_S, jnp.where(there_ST, rows_ST, nowhere))

    return -(-last_E[-1] // at_once), of
