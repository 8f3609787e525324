import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_cases import some_core
from drive_train import MODEL
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_trainer import CONFIG, SAMPLES, SHAPE, TINY, Trainer, one_step

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods import method_of
from o1p_jax.models.decoder import graph, init_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.training.packing import Batch, assemble
from o1p_jax.training.shapes import Shape
from o1p_jax.training.step import (
    local_rows,
    make_logprob_fn,
    model_logprobs,
    put_batch,
    sequences_of,
)

ROWS = ("fsdp", "expert")
MESHES = ("8x1", "4x2", "2x4", "1x1")


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_close(a, b, atol: float) -> None:
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=atol, err_msg=name)


@functools.cache
def trained_on(mesh: str) -> tuple[Trainer, dict[str, float]]:
    """A trainer on this mesh after two steps, and the second one's metrics."""
    trainer, batch = Trainer(mesh), one_step()
    return trainer, trainer.run(batch, batch)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", some_core(MESHES[:-1], ["4x2"]))
def test_every_mesh_gives_the_loss_and_weights_of_one_device(mesh):
    trainer, metrics = trained_on(mesh)
    alone, expected = trained_on("1x1")
    assert metrics.keys() == expected.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert_close(trainer.state, alone.state, 1e-5)


@pytest.mark.slow
def test_experts_spread_over_devices_learn_as_on_one():
    model = read_config(
        MODEL | dict(model_type="qwen3_moe", moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
    )
    batch = one_step()
    # Adam's own epsilon would make steps of the rounding of gradients near zero.
    cfg = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, adam_eps=1e-3))
    spread, alone = Trainer("fsdp:2,expert:4", cfg, model), Trainer("1x1", cfg, model)
    assert spread.state.params["stacks"][0]["gate"].get_value().sharding.spec == P(None, "expert", "fsdp", "tensor")
    assert spread.run(batch, batch)["loss"] == pytest.approx(alone.run(batch, batch)["loss"], rel=1e-5)
    assert_close(spread.state, alone.state, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", some_core(MESHES, ["4x2"]))
def test_every_parameter_and_moment_lies_where_the_rules_say(mesh):
    trainer, _ = trained_on(mesh)
    layout = param_shardings(TINY, trainer.mesh)
    expected = {jax.tree_util.keystr(path): s.spec for path, s in jax.tree_util.tree_leaves_with_path(layout)}
    # Written out once by hand: a rule that turned into "replicate" would pass a comparison with itself.
    by_hand = {
        "embed": P("tensor", ROWS), "norm": P(None), "attn_norm": P(None, None), "mlp_norm": P(None, None),
        "q_norm": P(None, None), "k_norm": P(None, None), "q": P(None, ROWS, "tensor", None),
        "k": P(None, ROWS, "tensor", None), "v": P(None, ROWS, "tensor", None),
        "o": P(None, "tensor", None, ROWS),
        "gate": P(None, ROWS, "tensor"), "up": P(None, ROWS, "tensor"), "down": P(None, "tensor", ROWS),
    }  # fmt: skip
    names = {path: re.findall(r"'(\w+)'", path)[-1] for path in expected}
    assert {names[path]: spec for path, spec in expected.items()} == by_hand
    checked = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(trainer.state):
        name = jax.tree_util.keystr(path)
        suffix = next((p for p in sorted(expected, key=len, reverse=True) if name.endswith(p)), None)
        wanted = NamedSharding(trainer.mesh, P() if suffix is None else expected[suffix])
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), name
        assert suffix is not None or leaf.ndim == 0, name
        checked += suffix is not None
    assert checked == 3 * len(expected)  # parameters and both of Adam's moments


@pytest.mark.slow
def test_microbatches_of_any_shapes_make_the_same_step():
    """One plain big batch against many microbatches, of one shape and of several, of which some are not used."""
    batches = {"big": one_step(Shape(24, 32)), "few": one_step(SHAPE), "many": one_step(Shape(8, 32), Shape(8, 16))}
    empty = Batch(*(np.zeros_like(x) for x in batches["many"][0]))
    batches["many"] = (
        Batch(*(np.concatenate(pair) for pair in zip(batches["many"][0], empty, strict=True))),
        batches["many"][1],
        empty,
    )
    assert [len(x.ids_RL) for x in batches["big"]] == [1] and len(batches["many"][0].ids_RL) >= 4
    results = {name: (trainer := Trainer("1x1"), trainer.run(batch)) for name, batch in batches.items()}
    big, expected = results["big"]
    for name in ("few", "many"):
        trainer, metrics = results[name]
        assert metrics.keys() == expected.keys()
        for figure in metrics.keys() - {"fill"}:
            np.testing.assert_allclose(metrics[figure], expected[figure], rtol=1e-5, atol=1e-6, err_msg=figure)
        assert_close(trainer.state, big.state, 1e-5)


@pytest.mark.slow
def test_the_metrics_hold_the_share_of_computed_slots_with_a_token():
    batches = one_step(Shape(8, 48), Shape(8, 16))
    used = [batch.present_RM.any(axis=(1, 2)).sum() * batch.ids_RL[0].size for batch in batches]
    more = tuple(Batch(*(np.concatenate([x, np.zeros_like(x)]) for x in batch)) for batch in batches)
    metrics = Trainer("1x1").run(more)
    assert all(used) and metrics["fill"] == pytest.approx(metrics["tokens"] / sum(used)) and metrics["fill"] > 0.5


@pytest.mark.core
@pytest.mark.slow
def test_packed_rows_give_the_loss_and_gradients_of_one_sample_a_row():
    mesh, definition = make_mesh("1x1"), graph(TINY)
    params = init_params(TINY, jax.random.key(0), mesh)
    [packed] = one_step(SHAPE)
    rng = np.random.default_rng(1)
    references = [rng.normal(-4, 0.3, len(s.completion_ids)).astype(np.float32) for s in SAMPLES]
    alone = assemble(SAMPLES, references, [[[i] for i in range(24)]], Shape(24, 32), 1, 1)
    assert packed.ids_RL.shape == (1, 8, 64) and packed.present_RM.shape[-1] > 1

    def loss(params, batch):
        logprobs = model_logprobs(definition, (params,), batch, CONFIG.compute, mesh)
        sums = method_of(CONFIG.method).objective(sequences_of(logprobs, batch), CONFIG.method)
        return sums.loss / sums.sequences

    gradient = jax.jit(jax.value_and_grad(loss))
    (a, packed_gradient), (b, alone_gradient) = (
        gradient(params, jax.tree.map(lambda x: jnp.asarray(x[0]), batch)) for batch in (packed, alone)
    )
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert_close(packed_gradient, alone_gradient, 1e-5)


@pytest.mark.slow
def test_frozen_parameters_have_no_moments_and_the_rest_is_trained():
    cfg = dataclasses.replace(CONFIG, compute=ComputeConfig(dtype="float32", trainable_layers=1, logprob_chunk=16))
    trainer = Trainer("4x2", cfg)
    before, frozen = leaves(trainer.state.params), leaves(trainer.frozen)
    moments = sum(x.size for x in jax.tree.leaves(trainer.state.opt_state) if x.ndim)
    assert moments == 2 * sum(x.size for x in before.values())
    trainer.run(one_step())
    assert all((before[name] != after).any() for name, after in leaves(trainer.state.params).items())
    assert all((frozen[name] == after).all() for name, after in leaves(trainer.frozen).items())


@pytest.mark.core
@pytest.mark.slow
def test_a_non_finite_step_changes_only_the_counters():
    trainer = Trainer("1x1")
    before = leaves(trainer.state)
    good = one_step()
    bad = one_step(samples=[dataclasses.replace(SAMPLES[0], weight=float("inf")), *SAMPLES[1:]])
    metrics = trainer.run(bad, bad)
    assert (metrics["skipped"], metrics["skipped_in_row"], metrics["params_changed"]) == (2, 2, 0)
    after = leaves(trainer.state)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {".step", ".skipped", ".skipped_in_row"} and after[".step"] == 2
    metrics = trainer.run(good)
    assert (metrics["skipped"], metrics["skipped_in_row"]) == (2, 0) and metrics["params_changed"] > 0


def _logits(hlo: str, tokens: int) -> int:
    """The most elements of a two-dimensional array in the compiled program whose first dimension is `tokens`."""
    return max((tokens * int(words) for words in re.findall(rf"\bf32\[{tokens},(\d+)\]", hlo)), default=0)


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "local_rows"), [("8x1", 1), ("4x2", 2)])
def test_the_compiled_step_holds_no_logits_beyond_a_chunk(mesh, local_rows):
    vocab, length, chunk = 2 * 1009, 62, 16
    model = read_config(MODEL | {"vocab_size": vocab, "hidden_size": 16, "head_dim": 8})
    local_vocab, tokens = vocab // make_mesh(mesh).shape["tensor"], local_rows * length

    def logits(chunk: int) -> int:
        compute = ComputeConfig(dtype="float32", logprob_chunk=chunk)
        trainer = Trainer(mesh, dataclasses.replace(CONFIG, compute=compute), model)
        placed = trainer.placed(one_step(Shape(8, length)))
        return _logits(trainer.step.lower(trainer.state, trainer.frozen, placed).compile().as_text(), tokens)

    assert 0 < logits(chunk) <= chunk * local_vocab
    assert logits(tokens) == tokens * local_vocab  # the count does see the logits of whole rows


@pytest.mark.parametrize(
    ("dtype", "precision"), some_core([("float32", "HIGHEST"), ("bfloat16", "DEFAULT")], [("bfloat16", "DEFAULT")])
)
def test_products_are_as_exact_as_their_type_and_have_factors_of_it(dtype, precision):
    """The derivatives' products too."""
    model = read_config(
        MODEL | dict(model_type="qwen3_moe", moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
    )
    cfg = dataclasses.replace(CONFIG, compute=ComputeConfig(dtype=dtype, logprob_chunk=16))
    trainer = Trainer("1x1", cfg, model)
    batches = trainer.placed(one_step())
    logprob_fn = make_logprob_fn(model, None, cfg.compute, trainer.mesh)
    for program in (
        trainer.step.lower(trainer.state, trainer.frozen, batches),
        logprob_fn.lower((trainer.state.params, trainer.frozen), batches[0]),
    ):
        products = [line for line in program.as_text().splitlines() if "stablehlo.dot_general" in line]
        assert len(products) > 10 and all(f"precision = [{precision}, {precision}]" in line for line in products)
        short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        factors = [re.findall(r"(b?f\d+)>", line.split(" : ")[-1].split(" -> ")[0]) for line in products]
        assert all(pair == [short, short] for pair in factors), factors


@pytest.mark.core
@pytest.mark.slow
def test_reference_logprobs_make_the_first_ratio_one():
    trainer = Trainer("8x1")
    [batch] = one_step(SHAPE)
    assert batch.ids_RL.shape[0] == 1
    logprob_fn = make_logprob_fn(TINY, None, CONFIG.compute, trainer.mesh)
    rows = batch.ids_RL.shape[1]
    assert local_rows(trainer.mesh, rows) == list(range(rows))
    logprobs = logprob_fn((trainer.state.params, nnx.State({})), put_batch(batch, trainer.mesh, rows))
    assert logprobs.shape == batch.ids_RL.shape[1:] and logprobs.is_fully_replicated
    batch.ref_logprobs_RL[:] = np.where(batch.mask_RL, np.asarray(logprobs)[None], 0)
    metrics = trainer.run((batch,))
    for name in ("ratio_min", "ratio_mean", "ratio_max"):
        np.testing.assert_allclose(metrics[name], 1.0, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], -np.mean([s.weight for s in SAMPLES]), atol=1e-6)
    assert metrics["clip_fraction"] == metrics["clamped_fraction"] == 0 and metrics["sequences"] == 24
