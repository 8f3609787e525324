import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1p_jax.models.attention import packed_attention


def plain_attention(q_BLHK, k_BLGK, v_BLGK, segments_BL):
    length, repeats = q_BLHK.shape[1], q_BLHK.shape[2] // k_BLGK.shape[2]
    k, v = jnp.repeat(k_BLGK, repeats, axis=2), jnp.repeat(v_BLGK, repeats, axis=2)
    scores = jnp.einsum("BLHK,BSHK->BHLS", q_BLHK, k) / jnp.sqrt(q_BLHK.shape[-1])
    mask = (segments_BL[:, :, None] == segments_BL[:, None]) & jnp.tril(jnp.ones((length, length), bool))[None]
    return jnp.einsum("BHLS,BSHK->BLHK", jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1), v)


def inputs(length, heads=6, kv_heads=2):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, (2, length, n, 8)) for key, n in zip(keys, (heads, kv_heads, kv_heads), strict=True)
    )
    edges = np.sort(np.random.default_rng(0).integers(0, length, 3))
    segments = jnp.asarray(
        np.stack(
            [
                np.searchsorted(edges, np.arange(length), side="right") + 1,
                np.where(np.arange(length) < length // 3, 1, 0),
            ]
        ).astype(np.int32)
    )
    return q, k, v, segments


@pytest.mark.parametrize("length", [1, 7, 128, 300])
def test_equals_the_plain_formula_and_its_gradients(length):
    *qkv, segments = inputs(length)

    def value_and_gradients(attention):
        loss = lambda q, k, v: jnp.sum(jnp.sin(attention(q, k, v, segments)))  # noqa: E731
        return attention(*qkv, segments), jax.grad(loss, argnums=(0, 1, 2))(*qkv)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value_and_gradients(packed_attention),
        value_and_gradients(plain_attention),
    )


def test_no_array_of_length_by_length():
    *qkv, segments = inputs(4096, heads=2, kv_heads=1)
    loss = jax.grad(lambda q, k, v: jnp.sum(packed_attention(q, k, v, segments)), argnums=(0, 1, 2))
    compiled = jax.jit(loss).lower(*qkv).compile()
    assert "4096,4096" not in compiled.as_text()
    whole = 2 * 2 * 4096 * 4096 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < whole / 2
