import dataclasses

import pytest

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.families import read_config
from o1p_jax.training.memory import TOKENS_ON_CPU, device_bytes, tokens_per_device, tokens_that_fit

LLAMA = dict(
    model_type="llama", vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=32, tie_word_embeddings=False, max_position_embeddings=4096,
    rms_norm_eps=1e-5, rope_theta=1e4, hidden_act="silu",
)  # fmt: skip
MODEL, FULL = read_config(LLAMA), ComputeConfig(remat="full")
MESH = {"replica": 1, "fsdp": 8, "expert": 1, "context": 1, "tensor": 1}


def test_what_fits_fills_nine_tenths_of_the_memory():
    for mesh in (MESH, MESH | {"fsdp": 2, "context": 4, "tensor": 2}):
        tokens = tokens_that_fit(MODEL, FULL, mesh, 80e9)
        assert device_bytes(MODEL, FULL, mesh, tokens) <= 72e9 < device_bytes(MODEL, FULL, mesh, tokens + 1)
    assert tokens_that_fit(MODEL, FULL, MESH, 10e9) == 1  # the weights alone are more


def test_less_is_kept_where_more_is_computed_again_and_nothing_of_what_is_frozen():
    def taken(compute, tokens=16384, **mesh):
        return device_bytes(MODEL, compute, MESH | mesh, tokens)

    assert taken(FULL) < taken(ComputeConfig(remat="light")) < taken(ComputeConfig(remat="none"))
    assert taken(dataclasses.replace(FULL, trainable_layers=8)) < taken(FULL)
    assert taken(FULL, 0, fsdp=16) < taken(FULL, 0) == taken(FULL, 0, context=2)  # "context" leaves weights whole


def test_the_state_of_a_known_run():
    """20 bytes a parameter: of 6.74 billion, an eighth."""
    state = device_bytes(MODEL, FULL, MESH, 0) - device_bytes(MODEL, FULL, MESH | {"fsdp": 2**40}, 0)
    assert state == pytest.approx(6.738e9 * 20 / 8, rel=0.01)


def test_a_given_number_counts_and_cpus_have_a_fixed_one():
    mesh = make_mesh("8x1")
    assert tokens_per_device(77, MODEL, FULL, mesh) == 77
    assert tokens_per_device(None, MODEL, FULL, mesh) == TOKENS_ON_CPU
    assert tokens_per_device(None, MODEL, FULL, make_mesh("fsdp:4,context:2"), 9001) == 4501
