"""The decoder's configuration: what follows from it."""

import pytest
from drive_train import MODEL

from o1p_jax.models.families import read_config
from o1p_jax.runtime.errors import BadInput

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("entries", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),  # as Qwen2.5's card has it
        ({"max_position_embeddings": 131072, "rope_scaling": YARN}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 8192),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
    ],
)
def test_the_context_counts_what_rescaled_positions_reach(entries, context):
    assert read_config(MODEL | entries).context == context


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({"rope_theta": float("nan")}, "rope_theta=nan: must be a finite number"),
        ({"rope_theta": -1.0}, "rope_theta=-1.0: must be above 0"),
        ({"rms_norm_eps": float("inf")}, "norm_eps=inf: must be a finite number"),
        ({"rope_scaling": YARN | {"factor": float("nan")}}, "factor=nan: must be a finite number"),
        ({"rope_scaling": YARN | {"beta_fast": float("-inf")}}, "beta_fast=-inf: must be a finite number"),
    ],
)
def test_numbers_must_be_finite(entries, fault):
    with pytest.raises(BadInput, match=f"config.json: {fault}"):
        read_config(MODEL | entries)
