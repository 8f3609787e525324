"""The TPU's kernel, run by Pallas' interpreter; that it compiles for a TPU is a test of planning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_attention import plain_attention

from o1p_jax.models.attention.scoring import Scoring
from o1p_jax.models.attention.tpu import block_size, make_kernel, splash_attention
from o1p_jax.models.remat import KEPT


@pytest.mark.parametrize(
    ("window", "softcap", "with_sinks"), [(None, None, False), (100, 2.0, False), (None, None, True)]
)
def test_equals_the_plain_formula_and_its_gradients(window, softcap, with_sinks):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, 256, n, 128)) for key, n in zip(keys, (4, 2, 2), strict=True))
    sinks = jnp.array([0.5, -1.0, 2.0, 0.0]) if with_sinks else None
    segments = jnp.asarray(np.stack([np.repeat([1, 2], [100, 156]), np.repeat([1, 0], [200, 56])]).astype(np.int32))
    kernels = tuple(
        make_kernel(256, 4, w, softcap, head_shards=1, row_shards=1, name=KEPT, interpret=True) for w in (None, window)
    )

    def ours(q, k, v, sinks):
        return splash_attention(kernels, jnp.int32(1), q, k, v, segments, segments, 0.1, sinks)

    def theirs(q, k, v, sinks):
        return plain_attention(q, k, v, segments, window, Scoring(0.1, softcap), sinks)

    def value_and_gradients(f):
        real = (segments > 0)[..., None, None]
        loss = lambda *args: jnp.sum(jnp.where(real, jnp.sin(f(*args)), 0.0))  # noqa: E731
        used = (0, 1, 2, 3) if with_sinks else (0, 1, 2)
        return jnp.where(real, f(q, k, v, sinks), 0), jax.grad(loss, argnums=used)(q, k, v, sinks)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        value_and_gradients(jax.jit(ours)),
        value_and_gradients(theirs),
    )


def test_block_sizes():
    assert [block_size(n) for n in (128, 384, 4096, 9216, 100)] == [128, 128, 1024, 1024, None]
    assert block_size(1152, 9216) == 128
