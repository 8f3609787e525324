import re
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import o1p_jax.models.grouped_product as module
from o1p_jax.models.grouped_product import grouped_product

ROWS, GROUPS = 96, 4


@partial(jax.jit, static_argnums=(4, 5))
def product_and_gradients(x, w, d_out, sizes, tile, at_once):
    out, pull = jax.vjp(lambda x, w: grouped_product(x, w, sizes, tile), x, w)
    return out, *pull(d_out)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=GROUPS, max_size=GROUPS).filter(lambda n: sum(n) <= ROWS), st.integers())
@pytest.mark.parametrize(("tile", "at_once"), [(8, 1), (16, 1), (8, 3), (16, 16)])
def test_grouped_product_and_its_gradients(tile, at_once, sizes, seed):
    """Groups empty, shorter and longer than a tile, and rows that belong to none; one tile a turn, and several."""
    rng = np.random.default_rng(abs(seed))
    x, w, d_out = (rng.standard_normal(s, np.float32) for s in ((ROWS, 5), (GROUPS, 5, 7), (ROWS, 7)))
    with mock.patch.dict(module._AT_ONCE, default=at_once):
        found = product_and_gradients(x, w, d_out, jnp.array(sizes), tile, at_once)
    out, d_x, d_w = map(np.asarray, found)  # JAX would compile each slice
    start = 0
    for e, n in enumerate(sizes):
        group = slice(start, start + n)
        np.testing.assert_allclose(out[group], x[group] @ w[e], atol=1e-5)
        np.testing.assert_allclose(d_x[group], d_out[group] @ w[e].T, atol=1e-5)
        np.testing.assert_allclose(d_w[e], x[group].T @ d_out[group], atol=1e-5)
        start += n
    assert not out[start:].any() and not d_x[start:].any()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_tpu_uses_the_compilers_own_product_and_a_gpu_several_tiles_a_turn(platform):
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 8), (4, 8, 16))]
    sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
    gradient = jax.grad(lambda x, w, sizes: jnp.sum(grouped_product(x, w, sizes, 16) ** 2), argnums=(0, 1))
    lowered = jax.jit(gradient).trace(*shapes, sizes).lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count('"chlo.ragged_dot"') == (3 if platform == "tpu" else 0)
    loops, batched = lowered.count("stablehlo.while"), re.findall(r"dot_general.*batching_dims.*<16x", lowered)
    assert (loops, len(batched)) == ((0, 0) if platform == "tpu" else (3, 3))


def test_no_row_meets_every_matrix():
    """A dense product would hold rows x experts x width."""
    x, w = jnp.ones((4096, 64)), jnp.ones((32, 64, 64))
    loss = jax.grad(lambda x, w: jnp.sum(grouped_product(x, w, jnp.full(32, 128), 128)), argnums=(0, 1))
    compiled = jax.jit(loss).lower(x, w).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * x.nbytes
