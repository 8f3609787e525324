from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.models.experts import Experts, expert_mlp, route
from o1p_jax.models.grouped_product import grouped_product

ROWS, GROUPS = 96, 4


@partial(jax.jit, static_argnums=4)
def product_and_gradients(x, w, d_out, sizes, tile):
    out, pull = jax.vjp(lambda x, w: grouped_product(x, w, sizes, tile), x, w)
    return out, *pull(d_out)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=GROUPS, max_size=GROUPS).filter(lambda n: sum(n) <= ROWS), st.integers())
@pytest.mark.parametrize("tile", [8, 16])
def test_grouped_product_and_its_gradients(tile, sizes, seed):
    """Groups empty, shorter and longer than a tile, and rows that belong to none."""
    rng = np.random.default_rng(abs(seed))
    x, w, d_out = (rng.standard_normal(s, np.float32) for s in ((ROWS, 5), (GROUPS, 5, 7), (ROWS, 7)))
    out, d_x, d_w = product_and_gradients(x, w, d_out, jnp.array(sizes), tile)
    start = 0
    for e, n in enumerate(sizes):
        group = slice(start, start + n)
        np.testing.assert_allclose(out[group], x[group] @ w[e], atol=1e-5)
        np.testing.assert_allclose(d_x[group], d_out[group] @ w[e].T, atol=1e-5)
        np.testing.assert_allclose(d_w[e], x[group].T @ d_out[group], atol=1e-5)
        start += n
    assert not out[start:].any() and not d_x[start:].any()


def test_a_tpu_uses_the_compilers_own_product():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 8), (4, 8, 16))]
    sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
    gradient = jax.grad(lambda x, w, sizes: jnp.sum(grouped_product(x, w, sizes, 16) ** 2), argnums=(0, 1))
    lowered = jax.jit(gradient).trace(*shapes, sizes).lower(lowering_platforms=("tpu",)).as_text()
    assert lowered.count('"chlo.ragged_dot"') == 3 and "while" not in lowered


@pytest.mark.parametrize("normalize", [True, False])
def test_route(normalize):
    logits = jnp.log(jnp.array([[[0.1, 0.4, 0.2, 0.3]]])) + 5
    weights, chosen = route(logits, 2, normalize)
    assert chosen.tolist() == [[[1, 3]]]
    np.testing.assert_allclose(weights[0, 0], np.array([0.4, 0.3]) / (0.7 if normalize else 1), rtol=1e-6)


def test_no_token_is_dropped_however_uneven_the_routing():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, 50, 6))
    gate, up = (jax.random.normal(k, (8, 6, 10)) for k in keys[1:3])
    down = jax.random.normal(keys[3], (8, 10, 6))
    chosen = jnp.full((2, 50, 2), 5).at[..., 1].set(2)  # all to two experts
    weights = jnp.full((2, 50, 2), 0.25)
    ours = expert_mlp(x, weights, chosen, Experts(gate, up, down, None, None), lambda gate, up: gate * up)
    theirs = sum(0.25 * ((x @ gate[e]) * (x @ up[e])) @ down[e] for e in (5, 2))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_no_row_meets_every_matrix():
    """A dense product would hold rows x experts x width."""
    x, w = jnp.ones((4096, 64)), jnp.ones((32, 64, 64))
    loss = jax.grad(lambda x, w: jnp.sum(grouped_product(x, w, jnp.full(32, 128), 128)), argnums=(0, 1))
    compiled = jax.jit(loss).lower(x, w).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * x.nbytes
