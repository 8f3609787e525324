import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_cases import some_core
from plain_attention import plain_attention

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.attention import packed
from o1p_jax.models.attention.packed import packed_attention
from o1p_jax.models.attention.scoring import Scoring
from o1p_jax.models.attention.tpu import make_kernel


def inputs(length, heads=6, kv_heads=2, rows=2):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, (rows, length, n, 8)) for key, n in zip(keys, (heads, kv_heads, kv_heads), strict=True)
    )
    edges = np.sort(np.random.default_rng(0).integers(0, length, 3))
    packed = np.searchsorted(edges, np.arange(length), side="right") + 1
    padded = np.where(np.arange(length) < length // 3, 1, 0)
    segments = np.stack([(packed, padded)[row % 2] for row in range(rows)])
    return q, k, v, jnp.asarray(segments.astype(np.int32))


def value_and_gradients(attention, segments, *arrays):
    """Of all arrays; a loss in which every output counts otherwise, but for those of padding, which mean nothing."""
    real = (segments > 0)[..., None, None]

    def masked(*arrays):
        return jnp.where(real, attention(*arrays), 0)

    def loss(*arrays):
        return jnp.sum(jnp.sin(masked(*arrays)))

    return jax.jit(masked)(*arrays), jax.jit(jax.grad(loss, argnums=range(len(arrays))))(*arrays)


def assert_close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.parametrize("length", some_core([1, 7, 128, 300, 512], [7, 300]))
def test_equals_the_plain_formula_and_its_gradients(length):
    *qkv, segments = inputs(length)
    ours = value_and_gradients(lambda q, k, v: packed_attention(q, k, v, segments), segments, *qkv)
    assert_close(ours, value_and_gradients(lambda q, k, v: plain_attention(q, k, v, segments), segments, *qkv))


@pytest.mark.parametrize("window", some_core([1, 100, 128, 200, 1000], [100]))
def test_windows_soft_caps_and_sinks(window):
    *qkv, segments = inputs(400)
    sinks, scoring = jnp.linspace(-2.0, 3.0, 6), Scoring(0.7, softcap=1.5)

    def ours(q, k, v, sinks):
        return packed_attention(q, k, v, segments, (None, window), jnp.int32(1), scoring, sinks)

    def theirs(q, k, v, sinks):
        return plain_attention(q, k, v, segments, window, scoring, sinks)

    assert_close(value_and_gradients(ours, segments, *qkv, sinks), value_and_gradients(theirs, segments, *qkv, sinks))


@pytest.mark.parametrize(
    ("mesh", "kv_heads"),
    some_core(
        [
            ("context:8", 2),
            ("fsdp:2,context:2,tensor:2", 3),
            ("context:2,tensor:4", 2),
            ("context:2,tensor:4", 12),
            ("tensor:6", 2),
            ("tensor:6", 3),
            ("replica:2", 2),
        ],
        [("fsdp:2,context:2,tensor:2", 3), ("context:2,tensor:4", 2)],
    ),
)
def test_split_over_devices_equals_unsplit(mesh, kv_heads):
    """Heads over "tensor", also where a device's queries need a part of the key-value heads; rows over "context"."""
    *qkv, segments = inputs(400, heads=12, kv_heads=kv_heads)
    sinks = jnp.linspace(-2.0, 3.0, 12)

    def attention(q, k, v, sinks):
        return packed_attention(q, k, v, segments, (150,), sinks_H=sinks)

    with jax.set_mesh(make_mesh(mesh)):
        split = value_and_gradients(attention, segments, *qkv, sinks)
    assert_close(split, value_and_gradients(attention, segments, *qkv, sinks))


@pytest.mark.core
@pytest.mark.parametrize("mesh", [None, "context:2"])
def test_rows_of_any_length_take_the_kernel_on_a_tpu(mesh, monkeypatch):
    *qkv, segments = inputs(200)
    expected = plain_attention(*qkv, segments)
    lengths = []

    def interpreted(length, *args, **kwargs):
        lengths.append(length)
        return make_kernel(length, *args, interpret=True, **kwargs)

    monkeypatch.setattr(packed, "platform", lambda: "tpu")
    monkeypatch.setattr(packed, "make_kernel", interpreted)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(make_mesh(mesh)):
        ours = jax.jit(packed_attention)(*qkv, segments)
    assert lengths == [256]
    real = (segments > 0)[..., None, None]
    np.testing.assert_allclose(jnp.where(real, ours, 0), jnp.where(real, expected, 0), atol=1e-5)


def gradient_program(length, mesh=None, **kwargs):
    q, k = (jax.ShapeDtypeStruct((1, length, heads, 64), jnp.bfloat16) for heads in (2, 1))
    segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
    loss = lambda q, k, v, segments: jnp.sum(packed_attention(q, k, v, segments).astype(jnp.float32))  # noqa: E731
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k, segments).compile()


@pytest.mark.core
def test_memory_grows_with_the_length_and_not_its_square():
    programs = [gradient_program(length) for length in (8192, 16384, 32768)]
    assert "32768,32768" not in programs[-1].as_text()
    small, middle, large = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert middle < 2.1 * small and large < 2.1 * middle


@pytest.mark.core
def test_what_no_query_sees_costs_nothing():
    """Not-a-number keys in other segments, in the future and before the window are never multiplied."""
    q, k, v, _ = inputs(640, rows=1)
    segments = jnp.repeat(jnp.array([[1, 2]], jnp.int32), 320, axis=1)
    poisoned = k.at[:, :256].set(jnp.nan).at[:, 640 - 128 :].set(jnp.nan)
    out = packed_attention(q, poisoned, v, segments, (64,))
    assert jnp.isfinite(out[:, 384 : 640 - 128]).all() and jnp.isnan(out[:, :256]).all()


@pytest.mark.core
def test_padding_costs_its_own_tiles_and_no_more():
    """Not-a-number keys in the padding's first tiles are never multiplied by the padding's last queries."""
    q, k, v, _ = inputs(640, rows=1)
    segments = (jnp.arange(640, dtype=jnp.int32) < 100).astype(jnp.int32)[None]
    out = packed_attention(q, k.at[:, 128:512].set(jnp.nan), v, segments)
    assert jnp.isfinite(out[:, :100]).all() and jnp.isfinite(out[:, 512:]).all()
