import dataclasses

import pytest

from o1p_jax.config.tree import ComputeConfig, RunConfig
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.compile import model_config
from o1p_jax.planning.roofline import computed_flops, step_flops


def model(name):
    return model_config(dataclasses.replace(RunConfig(), model=name))


def test_flops():
    qwen = model("Qwen/Qwen3-8B")
    n, tokens, length = model_sizes(qwen).multiplied, 4096, 1024
    attention = 12 * qwen.layers * qwen.heads * qwen.head_dim * (length + 1) / 2
    assert step_flops(qwen, tokens, length) == pytest.approx(tokens * (6 * n + attention), rel=1e-6)
    windows = dataclasses.replace(qwen, kinds=(dataclasses.replace(qwen.kinds[0], window=16),))
    near = 12 * qwen.layers * qwen.heads * qwen.head_dim * (16 - 16 * 15 / 2 / length)
    assert step_flops(windows, tokens, length) == pytest.approx(tokens * (6 * n + near), rel=1e-6)
    assert step_flops(qwen, tokens, length, 12) < step_flops(qwen, tokens, length) * 0.6
    full = computed_flops(qwen, tokens, length, ComputeConfig(remat="full"))
    head = 2 * tokens * qwen.vocab_size * qwen.hidden_size
    assert full == pytest.approx(step_flops(qwen, tokens, length) * 4 / 3)
    assert computed_flops(qwen, tokens, length, ComputeConfig(remat="light")) == step_flops(qwen, tokens, length) + head
