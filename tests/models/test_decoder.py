import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from core_cases import some_core
from flax import nnx
from jax.sharding import PartitionSpec as P
from plain_attention import plain_attention
from safetensors.numpy import load_file
from tiny_models import CASES, save, torch_model

from o1p_jax.devices.axes import SERVING_RULES
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.config import DecoderConfig, ExpertsConfig, LayerKind
from o1p_jax.models.decoder import Decoder, abstract_params, graph, init_params, param_shardings
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.hf.names import hf_tensors
from o1p_jax.models.layers import Norm

TINY = DecoderConfig(
    family="qwen3",
    vocab_size=64,
    hidden_size=32,
    mlp_size=48,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    qk_norm="head",
)
MIXTURE = dataclasses.replace(
    TINY, family="gpt_oss", qk_norm=None, experts=ExpertsConfig(count=4, per_token=2, router_bias=True)
)
ROWS = ("fsdp", "expert")
_IN_GROUPS = ("llama_llama3_tied", "gemma3_linear", "olmo3_yarn", "mixtral_windows", "gpt_oss")
"""Cases whose layers stand in two groups, as where some are frozen."""
LENGTH = 256  # four times every original context in tiny_models


def rows(batch, length, vocab, seed=0):
    ids = np.random.default_rng(seed).integers(0, vocab, (batch, length)).astype(np.int32)
    return jnp.asarray(ids), jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), ids.shape), jnp.ones_like(ids)


def logits(cfg, splits=None, remat="none"):
    def forward(params, ids, positions, segments):
        model = nnx.merge(graph(cfg, splits), params)
        return model.logits(model(ids, positions, segments, remat=remat) @ model.head_DV())

    return jax.jit(forward)


@pytest.mark.parametrize("case", some_core(CASES, ("gemma3_linear", "olmo3_yarn", "gpt_oss")))
def test_logits_and_gradients_equal_transformers(case, tmp_path):
    cfg = load_config(save(case, tmp_path))
    mesh = make_mesh("4x1" if cfg.kv_heads % 2 else "4x2")
    splits = (1, cfg.layers - 1) if case in _IN_GROUPS else None
    ids, positions, segments = rows(4, LENGTH, cfg.vocab_size)

    def loss(params):
        found = logits(cfg, splits)(params, ids, positions, segments)
        return jnp.mean(jax.nn.logsumexp(found, axis=-1)), found

    with jax.set_mesh(mesh):
        gradients, found = jax.jit(jax.grad(loss, has_aux=True))(load_params(tmp_path, cfg, mesh, splits=splits))
    ours = {path: weight.get_value() for path, weight in nnx.to_flat_state(gradients)}
    model = copy.deepcopy(torch_model(case))
    theirs_found = model(torch.tensor(np.asarray(ids)).long()).logits
    assert theirs_found.std() > 0.3  # the comparison is of something
    np.testing.assert_allclose(found, theirs_found.detach().numpy(), atol=1e-4)
    theirs_found.logsumexp(-1).mean().backward()
    for weight in model.parameters():
        weight.data = weight.grad
    model.save_pretrained(tmp_path / "gradients")  # by the names of the checkpoint, which are not always the model's
    theirs = load_file(tmp_path / "gradients" / "model.safetensors")
    for tensor in hf_tensors(cfg, splits):
        gradient = tensor.gather(ours, np.float32)
        expected = theirs[tensor.name]
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max() + 1e-7, err_msg=tensor.name)


@functools.cache
def loss_and_gradients(cfg, mesh, remat="none", offset=0.0):
    """Those of random weights, all larger by `offset`, on a mesh; and the weights."""
    batch, mesh = rows(8, 40, cfg.vocab_size), make_mesh(mesh)

    def loss(params):
        return jnp.mean(jax.nn.logsumexp(logits(cfg, remat=remat)(params, *batch), axis=-1))

    with jax.set_mesh(mesh):
        params = jax.tree.map(lambda w: w + offset, init_params(cfg, jax.random.key(1), mesh))
        return *jax.jit(jax.value_and_grad(loss))(params), params


_ALL_SWITCHES = dict(mlp_bias=True, attention_sinks=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "switches"),
    some_core(
        [
            ("8x1", dict()),
            ("fsdp:4,expert:2", _ALL_SWITCHES),
            ("fsdp:2,expert:2,tensor:2", dict()),
            ("expert:4,tensor:2", _ALL_SWITCHES),
            ("expert:2,context:2,tensor:2", _ALL_SWITCHES),
        ],
        [("expert:2,context:2,tensor:2", _ALL_SWITCHES)],
    ),
)
def test_meshes_agree_with_experts(mesh, switches):
    cfg = dataclasses.replace(MIXTURE, **switches)
    value, gradients, _ = loss_and_gradients(cfg, mesh, "light", 0.1)
    expected, expected_gradients, _ = loss_and_gradients(cfg, "1x1", "light", 0.1)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected_gradients)


@pytest.mark.parametrize(
    "mesh",
    some_core(
        ["8x1", "2x4", "1x8", "context:8", "replica:2,fsdp:2,context:2", "context:2,tensor:4"],
        ["context:2,tensor:4"],
    ),
)
def test_meshes_agree_whatever_they_leave_whole(mesh):
    """With 2 key-value heads, 4 and 8 tensor-parallel devices hold each of them several times."""
    cfg = dataclasses.replace(TINY, heads=8, qkv_bias=True, qk_norm="width", family="olmo2")
    value, gradients, params = loss_and_gradients(cfg, mesh)
    expected, expected_gradients, _ = loss_and_gradients(cfg, "1x1")
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected_gradients)
    spec = P(None, ROWS, "tensor" if make_mesh(mesh).shape["tensor"] <= 2 else None, None)
    assert params["stacks"][0]["k"].get_value().sharding.spec == spec


def test_each_who_asks_has_an_abstract_model_of_his_own():
    changed, kept = abstract_params(TINY), abstract_params(TINY)
    path, weight = nnx.to_flat_state(changed)[0]
    weight.set_metadata("logical_axes", ("changed",))
    weight.set_value(None)
    again = dict(nnx.to_flat_state(abstract_params(TINY)))[path]
    for other in (dict(nnx.to_flat_state(kept))[path], again):
        assert other.get_metadata("logical_axes") != ("changed",) and other.get_value() is not None


def test_many_layers_are_as_short_a_program_as_few():
    def instructions(layers):
        local, whole = LayerKind(window=8), LayerKind(rope=None)
        cfg = dataclasses.replace(TINY, layers=layers, kinds=(local, whole), pattern=(0, 0, 0, 1) * (layers // 4))
        loss = lambda params: jnp.sum(logits(cfg)(params, *rows(1, 16, cfg.vocab_size)))  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(abstract_params(cfg)).as_text().count("\n")

    assert instructions(64) <= instructions(4)


@pytest.mark.core
def test_packed_equals_unpacked():
    params = init_params(TINY, jax.random.key(0), make_mesh("1x1"))
    model = nnx.merge(graph(TINY), params)
    lengths, row = [70, 41, 90], 256
    ids, positions, segments = (np.zeros((1, row), np.int32) for _ in range(3))
    start = 0
    for i, n in enumerate(lengths):
        ids[0, start : start + n] = np.asarray(rows(1, n, TINY.vocab_size, seed=i)[0])
        positions[0, start : start + n], segments[0, start : start + n] = np.arange(n), i + 1
        start += n
    forward = jax.jit(lambda *batch: model(*batch))
    packed = forward(ids, positions, segments)
    assert jnp.all(jnp.isfinite(packed))
    start = 0
    for i, n in enumerate(lengths):
        alone = forward(*rows(1, n, TINY.vocab_size, seed=i))
        np.testing.assert_allclose(packed[:, start : start + n], alone, atol=1e-5)
        start += n


@pytest.mark.core
@pytest.mark.parametrize("splits", [None, (2, 1)])
def test_cached_equals_full_forward(splits):
    model = Decoder(TINY, splits=splits, rngs=nnx.Rngs(0))
    ids, positions, segments = rows(2, 12, TINY.vocab_size)
    keys = values = jnp.zeros((TINY.layers, 2, 0, TINY.kv_heads, TINY.head_dim))
    seen = []
    for start, end in ((0, 7), (7, 8), (8, 12)):

        def attend(q, k, v, sinks, window, cached):
            k, v = (jnp.concatenate(pair, axis=1) for pair in zip(cached, (k, v), strict=True))
            q = jnp.pad(q, ((0, 0), (k.shape[1] - q.shape[1], 0), (0, 0), (0, 0)))
            return plain_attention(q, k, v, jnp.ones(q.shape[:2], jnp.int32))[:, -(end - start) :]  # noqa: B023

        of_tokens = ids[:, start:end], positions[:, start:end], jnp.full((2, end - start), end)
        forward = jax.jit(lambda *inputs: model.forward_cached(*inputs[:-1], attend, inputs[-1]))
        hidden, new = forward(*of_tokens, (keys, values))
        keys, values = jnp.concatenate([keys, new[0]], axis=2), jnp.concatenate([values, new[1]], axis=2)
        seen.append(hidden)
    np.testing.assert_allclose(jnp.concatenate(seen, axis=1), model(ids, positions, segments), atol=1e-5)


def test_splits_and_remat_change_nothing(tmp_path):
    cfg = load_config(save("qwen3_head_dim", tmp_path))
    mesh = make_mesh("1x1")
    batch = rows(2, 40, cfg.vocab_size)

    def loss_and_embedding_gradient(splits, remat):
        def loss(params):
            return jnp.mean(nnx.merge(graph(cfg, splits), params)(*batch, remat=remat) ** 3)

        value, gradient = jax.jit(jax.value_and_grad(loss))(load_params(tmp_path, cfg, mesh, splits=splits))
        return value, gradient["embed"][...]

    expected = loss_and_embedding_gradient(None, "none")
    for splits, remat in ((None, "light"), ((1, 2), "none"), ((1, 1, 1), "light"), (None, "full")):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            loss_and_embedding_gradient(splits, remat),
            expected,
        )


def test_bfloat16_stays_near_float32():
    model = Decoder(TINY, rngs=nnx.Rngs(0))
    batch = rows(2, 40, TINY.vocab_size)
    low = model(*batch, dtype=jnp.bfloat16)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), model(*batch), atol=0.1)


def test_norms_add_their_offset_in_float32():
    """Weights may be bfloat16, where 1 + weight would be rounded by up to 0.4%."""
    x = jax.random.normal(jax.random.key(0), (3, 64))
    scale = jnp.linspace(-0.3, 0.3, 64).astype(jnp.bfloat16)
    expected = x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + 1e-6) * (1 + scale.astype(jnp.float32))[None]
    np.testing.assert_allclose(Norm(1e-6, 1.0, True)(x, nnx.Param(scale)), expected, rtol=1e-6)


def test_splits_must_add_up():
    with pytest.raises(ValueError, match="add up to the model's 3 layers"):
        abstract_params(TINY, (1, 1))


@pytest.mark.core
def test_every_weight_lies_where_the_rules_say():
    mesh = make_mesh("4x2")
    every = dataclasses.replace(TINY, qkv_bias=True, o_bias=True, mlp_bias=True, post_norm=True)
    layer = {
        "attn_norm": P(None, None),
        "attn_post_norm": P(None, None),
        "mlp_post_norm": P(None, None),
        "mlp_norm": P(None, None),
        "q": P(None, ROWS, "tensor", None),
        "k": P(None, ROWS, "tensor", None),
        "v": P(None, ROWS, "tensor", None),
        "o": P(None, "tensor", None, ROWS),
        "q_bias": P(None, "tensor", None),
        "k_bias": P(None, "tensor", None),
        "v_bias": P(None, "tensor", None),
        "o_bias": P(None, None),
        "q_norm": P(None, None),
        "k_norm": P(None, None),
        "gate": P(None, ROWS, "tensor"),
        "up": P(None, ROWS, "tensor"),
        "down": P(None, "tensor", ROWS),
        "gate_bias": P(None, "tensor"),
        "up_bias": P(None, "tensor"),
        "down_bias": P(None, None),
    }
    expected = {("embed",): P("tensor", ROWS), ("head",): P(ROWS, "tensor"), ("norm",): P(None)}
    expected |= {("stacks", stack, name): spec for stack in (0, 1) for name, spec in layer.items()}
    params = dict(nnx.to_flat_state(init_params(every, jax.random.key(0), mesh, (1, 2))))
    assert {path: w.get_value().sharding.spec for path, w in params.items()} == expected
    assert all(w.get_value().sharding.mesh.shape == mesh.shape for w in params.values())
    serving = nnx.to_flat_state(param_shardings(every, mesh, rules=SERVING_RULES))
    assert all(w.get_value().spec == P(*(a if a == "tensor" else None for a in expected[path])) for path, w in serving)


def test_every_weight_of_experts_lies_where_the_rules_say():
    mesh = make_mesh("fsdp:2,expert:2,tensor:2")
    cfg = dataclasses.replace(MIXTURE, mlp_bias=True, attention_sinks=True)
    expected = {
        "router": P(None, ROWS, None),
        "router_bias": P(None, None),
        "sinks": P(None, "tensor"),
        "gate": P(None, "expert", "fsdp", "tensor"),
        "up": P(None, "expert", "fsdp", "tensor"),
        "down": P(None, "expert", "tensor", "fsdp"),
        "gate_bias": P(None, "expert", "tensor"),
        "up_bias": P(None, "expert", "tensor"),
        "down_bias": P(None, None, None),
    }
    layer = init_params(cfg, jax.random.key(0), mesh)["stacks"][0]
    assert {name: layer[name].get_value().sharding.spec for name in expected} == expected
    serving = param_shardings(cfg, mesh, rules=SERVING_RULES)["stacks"][0]
    assert serving["gate"].get_value().spec == P(None, "expert", None, "tensor")


@pytest.mark.core
def test_random_weights_do_not_depend_on_the_mesh():
    one, eight = (init_params(TINY, jax.random.key(3), make_mesh(mesh)) for mesh in ("1x1", "4x2"))
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert 0.015 < float(jnp.std(one["embed"][...])) < 0.025
