import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1p_jax.models.experts import Experts, expert_mlp, route

pytestmark = pytest.mark.core


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
