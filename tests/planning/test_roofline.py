import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.config.tree import BatchConfig, ComputeConfig, RunConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.compile import abstract_batch, abstract_state, model_config
from o1p_jax.planning.roofline import (
    PACKED,
    RECOMPUTED,
    SPLASH,
    Kernel,
    computed_operations,
    computed_pairs,
    mean_reach,
    sent_bytes,
    step_flops,
)
from o1p_jax.training.packing import make_steps
from o1p_jax.training.shapes import Room
from o1p_jax.training.step import make_train_step
from o1p_jax.training.trainable import layer_splits


def model(name):
    return model_config(dataclasses.replace(RunConfig(), model=name))


def with_window(config, window):
    return dataclasses.replace(config, kinds=(dataclasses.replace(config.kinds[0], window=window),))


def test_model_flops():
    qwen = model("Qwen/Qwen3-8B")
    n, tokens, length = model_sizes(qwen).multiplied, 4096, 1024
    attention = 12 * qwen.layers * qwen.heads * qwen.head_dim * (length + 1) / 2
    # The norms' weights, which no product has, are .005% of the parameters.
    assert step_flops(qwen, tokens, length) == pytest.approx(tokens * (6 * n + attention), rel=1e-4)
    near = 12 * qwen.layers * qwen.heads * qwen.head_dim * (16 - 16 * 15 / 2 / length)
    assert step_flops(with_window(qwen, 16), tokens, length) == pytest.approx(tokens * (6 * n + near), rel=1e-4)
    assert step_flops(qwen, tokens, length, 12) < step_flops(qwen, tokens, length) * 0.6


def products(jaxpr, times=1):
    """Operations of all products without a batch axis (attention's have some) in a program; open loops turn once."""
    found = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), (batched, _) = equation.params["dimension_numbers"]
            sizes = [equation.invars[0].aval.shape[axis] for axis in contracted]
            found += 2 * times * math.prod(sizes) * math.prod(equation.outvars[0].aval.shape) * (not batched)
        turns = times * equation.params.get("length", 1)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                found += products(inner, turns) if hasattr(inner, "eqns") else 0
    return found


@pytest.mark.parametrize("trained", [None, 12])
@pytest.mark.parametrize("remat", ["none", "light", "full"])
def test_the_formula_counts_the_products_of_the_real_step(remat, trained):
    compute = ComputeConfig(remat=remat, trainable_layers=trained)
    cfg = RunConfig(
        model="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", compute=compute,
        batch=BatchConfig(row_length=1024, too_long="drop"),
    )  # fmt: skip
    config, mesh = model_config(cfg), make_mesh("1x1")
    splits = layer_splits(config.layers, trained)
    state, frozen, shardings = abstract_state(cfg, config, splits, mesh)
    step = make_train_step(config, splits, cfg.training, 10, mesh, shardings)
    room = Room(devices=1, parts=1, tokens=1024, row_length=1024)
    batch = abstract_batch(make_steps([1024], cfg.batch, 1, 0, room), mesh)
    traced = products(step.trace(state, frozen, (batch,)).jaxpr.jaxpr)
    if trained is not None:  # the gradient of a frozen head, which nothing reads: the compiler leaves it out
        traced -= 2 * 1024 * config.vocab_size * config.hidden_size
    formula = computed_operations(config, 1024, [1024], PACKED, RECOMPUTED[remat], trained)
    assert formula.products == pytest.approx(traced, rel=2e-3)  # the head's last block may begin early


@given(st.integers(1, 3000), st.none() | st.integers(1, 3000), st.sampled_from([1, 16, 128]))
def test_computed_pairs_are_those_of_all_tiles_that_a_query_sees(length, window, tile):
    kernel, least = Kernel(tile, 2.5, by_text=True), (length + tile - 1) // tile
    seen = 0
    for i in range(least):
        first = 0 if window is None else max(0, i * tile - window + 1) // tile
        seen += (i - first + 1) * tile**2
    assert computed_pairs(length, window, kernel) == seen


def test_a_tpu_computes_what_other_texts_of_the_row_would_see():
    qwen = model("Qwen/Qwen3-8B")
    rows = computed_operations(qwen, 8192, [8192], SPLASH, ())
    texts = computed_operations(qwen, 8192, [1024] * 8, PACKED, ())
    assert rows.products == texts.products
    tiles = 8 * 9 / 2 * 1024**2
    assert rows.attention == 4 * qwen.layers * qwen.heads * qwen.head_dim * 4.5 * tiles
    assert texts.attention == 4 * qwen.layers * qwen.heads * qwen.head_dim * 3.5 * 8 * 8 * 9 / 2 * 128**2
    again = computed_operations(qwen, 8192, [8192], SPLASH, RECOMPUTED["full"])
    assert again.attention == pytest.approx(rows.attention * 5.5 / 4.5)


def test_the_mean_reach_of_long_rows_and_windows():
    qwen = model("Qwen/Qwen3-8B")
    assert mean_reach(qwen, [128 * 136], PACKED) == 137 / 2
    assert mean_reach(with_window(qwen, 129), [128 * 136], PACKED) == 2 - 1 / 136
    assert mean_reach(qwen, [128], PACKED) == 1


def test_axes_of_one_device_send_nothing():
    qwen, alone = model("Qwen/Qwen3-8B"), dict(replica=1, fsdp=1, expert=1, context=1, tensor=1)
    assert sent_bytes(qwen, 4096, 1, alone, ComputeConfig()) == []
    [sent] = sent_bytes(qwen, 4096, 2, alone | {"fsdp": 8}, ComputeConfig(dtype="bfloat16", remat="full"))
    assert (sent.axis, sent.bytes) == ("fsdp", 2 * 4 * 2 * model_sizes(qwen).total)
