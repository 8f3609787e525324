"""cuDNN's kernel, which needs a card, is stood in for by plain JAX; that XLA compiles it is a test of planning."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_cases import some_core
from cudnn_stand_in import install
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from plain_attention import plain_attention

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.attention import gpu
from o1p_jax.models.attention.gpu import places_of, refusal, workspace
from o1p_jax.models.attention.packed import packed_attention, served
from o1p_jax.models.attention.scoring import Scoring

H100 = "NVIDIA H100 80GB HBM3"
ALL_AXES = "fsdp:2,context:2,tensor:2"


def segments_of(*rows):
    """Rows of segments 1, 2, ... of the given lengths, 0 where a length is negative."""
    numbered = [[m + 1 if n > 0 else 0 for m, n in enumerate(row) for _ in range(abs(n))] for row in rows]
    return jnp.array(numbered, jnp.int32)


@pytest.mark.core
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-6, 9).filter(bool), max_size=6), min_size=1, max_size=4))
def test_places_are_those_of_the_segments(rows):
    rows = [[*row, -60 + sum(map(abs, row))] for row in rows]
    rows = [row if row[-1] else row[:-1] for row in rows] + [[-60]] * (4 - len(rows))  # one shape: few compilations
    segments = segments_of(*rows)
    most = max(sum(n > 0 for n in row) for row in rows) or 1
    compiled = jax.jit(places_of, static_argnums=1)
    places = jax.tree.map(np.asarray, compiled(segments, most))
    flat = np.asarray(segments).reshape(-1)
    told = [range(s, s + n) for s, n in zip(places.starts_n, places.lengths_n, strict=True) if n]
    assert [len(r) for r in told] == [n for row in rows for n in row if n > 0] and places.complete
    assert len(places.starts_n) == len(rows) * most and (places.starts_n[len(told) :] == flat.size).all()
    assert sorted(t for r in told for t in r) == np.flatnonzero(flat).tolist()
    for number, tokens in enumerate(told):
        assert len(set(flat[tokens])) == 1 and tokens.start // 60 == tokens[-1] // 60
        assert (places.number_BL.reshape(-1)[tokens] == number).all()
        assert places.within_BL.reshape(-1)[tokens].tolist() == list(range(len(tokens)))
    assert (places.number_BL.reshape(-1)[flat == 0] == len(places.starts_n)).all()
    if most > 1 and len(told) > len(rows) * (most - 1):
        assert not compiled(segments, most - 1).complete


def inputs(heads=4, kv_heads=2, length=64):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (
        jax.random.normal(key, (2, length, n, 16)).astype(jnp.bfloat16)
        for key, n in zip(keys, (heads, kv_heads, kv_heads), strict=False)
    )
    segments = segments_of((9, 1, 30, length - 40), (20, 12, 32 - length))
    return (q, k, v), segments, jax.random.normal(keys[3], (heads,))


def value_and_gradients(attention, segments, *arrays):
    """Of all arrays, in float32; a loss in which every output of a token counts otherwise."""
    real = (segments > 0)[..., None, None]

    def masked(*arrays):
        return jnp.where(real, attention(*arrays).astype(jnp.float32), 0)

    def loss(*arrays):
        return jnp.sum(jnp.sin(masked(*arrays)))

    found = jax.jit(masked)(*arrays), jax.jit(jax.grad(loss, argnums=range(len(arrays))))(*arrays)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), found)


def assert_close(ours, theirs):
    """To what rounding to bfloat16 does."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.03, atol=0.05), ours, theirs)


@pytest.mark.parametrize("window", some_core([None, 1, 7, 64], [7]))
@pytest.mark.parametrize("with_sinks", [False, True])
def test_equals_the_plain_formula_and_its_gradients(window, with_sinks, monkeypatch):
    qkv, segments, sinks = inputs()
    arrays = (*qkv, sinks) if with_sinks else qkv
    calls = install(monkeypatch)

    def ours(q, k, v, sinks=None):
        return packed_attention(q, k, v, segments, (None, window), jnp.int32(1), Scoring(0.3), sinks, 4)

    def theirs(q, k, v, sinks=None):
        return plain_attention(*(x.astype(jnp.float32) for x in (q, k, v)), segments, window, Scoring(0.3), sinks)

    found = value_and_gradients(ours, segments, *arrays)
    assert {(name, call.window) for name, call, _ in calls} == {
        (name, w) for name in ("forward", "backward") for w in (None, window if window != 64 else None)
    }
    assert_close(found, value_and_gradients(theirs, segments, *arrays))


@pytest.mark.parametrize(
    ("mesh", "kv_heads"),
    some_core(
        [("context:8", 8), ("context:4", 2), (ALL_AXES, 4), ("context:2,tensor:4", 2), ("tensor:8", 8)],
        [(ALL_AXES, 4)],
    ),
)
@pytest.mark.parametrize("with_sinks", [False, True])
def test_split_over_devices_equals_the_loop(mesh, kv_heads, with_sinks, monkeypatch):
    """Whole rows are exchanged for heads, also where the devices along "context" outnumber the key-value heads."""
    qkv, segments, sinks = inputs(heads=8, kv_heads=kv_heads)
    arrays = (*qkv, sinks) if with_sinks else qkv

    def attention(q, k, v, sinks=None):
        return packed_attention(q, k, v, segments, (12,), sinks_H=sinks, most_segments=4)

    expected = value_and_gradients(attention, segments, *arrays)
    calls = install(monkeypatch)
    with jax.set_mesh(make_mesh(mesh)):
        found = value_and_gradients(attention, segments, *arrays)
    assert {name for name, *_ in calls} == {"forward", "backward"}
    assert all(shapes[0][1] == 64 for _, _, shapes in calls)
    assert_close(found, expected)


@pytest.mark.core
def test_heads_in_parts_where_the_workspace_would_be_large(monkeypatch):
    qkv, segments, sinks = inputs()

    def attention(q, k, v, sinks):
        return packed_attention(q, k, v, segments, sinks_H=sinks, most_segments=4)

    calls = install(monkeypatch)
    whole = value_and_gradients(attention, segments, *qkv, sinks)
    assert all(shapes[0] == (2, 64, 4, 16) for *_, shapes in calls)
    assert workspace(2, 64, 4, 16, 4) == 2 * 4 * 64 * 4 * 17 * 4
    calls.clear()
    monkeypatch.setattr(gpu, "_WORKSPACE", workspace(2, 64, 4, 16, 4) // 2)
    assert workspace(2, 64, 4, 16, 4) == gpu._WORKSPACE
    parts = value_and_gradients(attention, segments, *qkv, sinks)
    assert len(calls) == 6 and all(shapes[0] == (2, 64, 2, 16) for *_, shapes in calls)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), parts, whole)


@pytest.mark.core
def test_more_segments_than_told_are_not_left_out_unsaid(monkeypatch):
    (q, k, v), segments, _ = inputs()
    install(monkeypatch)
    attention = jax.jit(packed_attention, static_argnames="most_segments")
    assert jnp.isfinite(attention(q, k, v, segments, most_segments=3)).all()  # 6 segments in 2 rows
    assert jnp.isnan(attention(q, k, v, segments, most_segments=2)[segments > 0]).all()


@pytest.mark.core
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"card": "NVIDIA H200"}, None),
        ({"card": "NVIDIA GB200"}, None),
        ({"dtype": "float16"}, None),
        ({"card": "NVIDIA A100-SXM4-80GB"}, "on NVIDIA A100-SXM4-80GB"),
        ({"card": "AMD Instinct MI300X"}, "on AMD Instinct MI300X"),
        ({"dtype": "float32"}, "in float32"),
        ({"softcap": 50.0}, "soft cap"),
        ({"head_dim": 300}, "heads of 300 numbers"),
        ({"head_dim": 36}, "heads of 36 numbers"),
        ({"segments": None}, "is not known"),
        ({"segments": 600}, "up to 600 segments in each of 1 rows of 17408 tokens"),
        ({"rows": 64, "segments": 2}, "64 rows of 17408 tokens and 28 heads"),
    ],
)
def test_the_loop_serves_where_the_kernel_cannot_and_says_why(changes, reason):
    usual = {"card": H100, "dtype": "bfloat16", "softcap": None, "rows": 1, "length": 17408, "heads": 28}
    found = refusal(**usual | {"head_dim": 128, "segments": 20} | changes)
    assert found == reason if reason is None else reason in found


@pytest.mark.core
@pytest.mark.parametrize(
    ("flags", "loop"),
    [
        ("--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0", True),
        ("--xla_gpu_exclude_nondeterministic_ops", True),
        ("--xla_gpu_deterministic_ops=false", False),
    ],
)
def test_the_loop_serves_where_bits_must_repeat(flags, loop, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert (refusal(H100, "bfloat16", None, 1, 128, 4, 64, 2) is not None) == loop


@pytest.mark.core
def test_the_loop_serves_where_devices_do_not_share_heads_out(monkeypatch):
    calls = install(monkeypatch)
    (q, k, v), segments, _ = inputs(heads=6)
    with jax.set_mesh(make_mesh("context:4")):
        assert "4 devices along context do not share 6 heads out" in served(q.dtype, None, q.shape, 4).by
        out = jax.jit(lambda *qkv: packed_attention(*qkv, segments, most_segments=4))(q, k, v)
    assert not calls and jnp.isfinite(out).all()


@pytest.mark.core
def test_this_jax_has_the_primitives_that_are_called():
    call = gpu.Call(scale=0.1, window=3, segments=2)
    for lower, more in (
        (cudnn._dot_product_attention_fwd_cuda_lowering, {"is_training"}),
        (cudnn._dot_product_attention_bwd_cuda_lowering, set()),
    ):
        keywords = {
            name
            for name in inspect.signature(lower).parameters
            if name in gpu._compiled_in(call) or name == "is_training"
        }
        assert keywords == set(gpu._compiled_in(call)) | more
