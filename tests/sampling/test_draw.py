import jax.numpy as jnp
import numpy as np
import pytest

from o1p_jax.sampling.draw import Draw, draw_tokens

LOGITS = jnp.log(jnp.asarray([0.4, 0.3, 0.2, 0.06, 0.04]))


@pytest.mark.parametrize(
    ("draw", "support"),
    [
        (Draw(0.0, 1.0, 0), {0}),
        (Draw(1.0, 1.0, 0), {0, 1, 2, 3, 4}),
        (Draw(1.0, 1.0, 2), {0, 1}),
        (Draw(1.0, 1.0, 9), {0, 1, 2, 3, 4}),
        (Draw(1.0, 0.1, 0), {0}),
        (Draw(1.0, 0.75, 0), {0, 1, 2}),
        (Draw(1.0, 0.65, 3), {0, 1}),  # of the three kept, the first two hold 7/9
    ],
)
def test_support(draw, support):
    n = 2000
    keys = np.stack([np.zeros(n), np.arange(n)], axis=1).astype(np.uint32)
    got = draw_tokens(jnp.tile(LOGITS[None], (n, 1)), jnp.asarray(keys), jnp.zeros(n, jnp.int32), draw)
    assert set(np.asarray(got).tolist()) == support
