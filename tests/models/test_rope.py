import numpy as np
import pytest
from transformers import LlamaConfig, Olmo3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from o1p_jax.models.families import read_config
from o1p_jax.models.rope import rope_frequencies

SIZES = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=88,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)


def assert_same(config, layer_type=None):
    ours = read_config(config.to_dict()).kinds[0].rope
    theirs, factor = ROPE_INIT_FUNCTIONS[ours.rope_type](config, layer_type=layer_type)
    frequencies, attention_factor = rope_frequencies(ours, 16)
    np.testing.assert_allclose(frequencies, theirs.numpy(), rtol=1e-6)
    assert attention_factor == pytest.approx(factor)


@pytest.mark.parametrize(
    "change",
    [
        dict(attn_factor=0.5, finetuned=True),
        dict(factor=None),
        dict(factor=None, mscale=0.7, mscale_all_dim=1.1),
        dict(attention_factor=1.3, truncate=False),
        dict(beta_fast=None, beta_slow=None),
    ],
)
def test_entries_count_as_for_transformers(change):
    assert_same(LlamaConfig(**SIZES, rope_parameters=YARN | change))


def test_truncation_is_read_for_one_rope_only():
    ropes = dict(full_attention=YARN | dict(truncate=False), sliding_attention=dict(rope_type="default"))
    assert_same(Olmo3Config(**SIZES, layer_types=["full_attention"], rope_parameters=ropes), "full_attention")
