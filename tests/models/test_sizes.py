import dataclasses

import pytest

from o1p_jax.config.tree import RunConfig
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.compile import model_config


def model(name):
    return model_config(dataclasses.replace(RunConfig(), model=name))


@pytest.mark.parametrize(
    ("name", "billions", "multiplied"),
    [  # as the models' cards have them; without the embedding's rows, and of experts those that a token goes to
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.78, 1.54),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.62, 7.07),
        ("Qwen/Qwen3-8B", 8.19, 7.57),
        ("Qwen/QwQ-32B-Preview", 32.76, 31.99),
        ("Qwen/Qwen3-30B-A3B", 30.53, 3.04),
    ],
)
def test_sizes_of_known_models(name, billions, multiplied):
    sizes = model_sizes(model(name))
    assert (round(sizes.total / 1e9, 2), round(sizes.multiplied / 1e9, 2)) == (billions, multiplied)
