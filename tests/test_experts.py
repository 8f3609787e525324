import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.models.experts import Experts, expert_mlp, grouped_product, route


def dense(x, w, sizes):
    """The same by a loop over groups."""
    ends = np.cumsum(sizes)
    parts = [x[end - n : end] @ w[e] for e, (n, end) in enumerate(zip(sizes, ends, strict=True))]
    return jnp.concatenate([*parts, jnp.zeros((len(x) - ends[-1], w.shape[2]))])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 20), st.sampled_from([8, 16]))
def test_grouped_product_and_its_gradients(sizes, rest, tile):
    """Groups empty, shorter and longer than a tile, and rows that belong to none."""
    if not sum(sizes) + rest:
        rest = 1
    keys = jax.random.split(jax.random.key(sum(sizes)), 3)
    x = jax.random.normal(keys[0], (sum(sizes) + rest, 5))
    w, d_out = jax.random.normal(keys[1], (len(sizes), 5, 7)), jax.random.normal(keys[2], (len(x), 7))
    ours, pull = jax.vjp(lambda x, w: grouped_product(x, w, jnp.array(sizes), tile), x, w)
    theirs, their_pull = jax.vjp(lambda x, w: dense(x, w, sizes), x, w)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), pull(d_out), their_pull(d_out))


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
