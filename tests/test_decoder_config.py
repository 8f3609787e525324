import pytest
from tiny_models import CASES
from transformers import AutoConfig

from o1p_jax.errors import BadInput
from o1p_jax.models.config import DecoderConfig, RopeConfig

LLAMA = dict(
    model_type="llama",
    vocab_size=96,
    hidden_size=64,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
)


@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_hugging_face(case, tmp_path):
    ours = DecoderConfig.from_hf(CASES[case].to_dict())
    assert DecoderConfig.from_hf(ours.to_hf()) == ours
    theirs = AutoConfig.for_model(**ours.to_hf())
    assert DecoderConfig.from_hf(theirs.to_dict()) == ours
    assert {k: v for k, v in theirs.rope_parameters.items() if v is not None} == {
        k: v for k, v in CASES[case].rope_parameters.items() if v is not None
    }


def test_what_is_left_out_follows_transformers():
    ours = DecoderConfig.from_hf({k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "rms_norm_eps")})
    assert (ours.kv_heads, ours.head_dim, ours.norm_eps, ours.tied, ours.qkv_bias) == (4, 16, 1e-6, False, False)
    assert ours.rope == RopeConfig(rope_type="default", rope_theta=10000.0)
    qwen3 = DecoderConfig.from_hf(LLAMA | dict(model_type="qwen3"))
    assert (qwen3.head_dim, qwen3.qk_norm) == (128, True)
    qwen2 = DecoderConfig.from_hf(LLAMA | dict(model_type="qwen2"))
    assert (qwen2.qkv_bias, qwen2.o_bias) == (True, False)


def test_rope_of_transformers_4():
    old = DecoderConfig.from_hf(LLAMA | dict(rope_theta=500000, rope_scaling=dict(type="linear", factor=2)))
    assert old.rope == RopeConfig(rope_type="linear", rope_theta=500000.0, factor=2.0)
    yarn = dict(type="yarn", factor=4.0)
    config = DecoderConfig.from_hf(LLAMA | dict(max_position_embeddings=128, rope_scaling=yarn))
    assert config.rope.original_max_position_embeddings == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model_type="mamba"), "model_type='mamba' is not supported; these are: llama, qwen2, qwen3"),
        (dict(model_type=None), "model_type=None"),
        (dict(auto_map={"AutoModel": "x.Y"}), "auto_map"),
        (dict(quantization_config={"bits": 4}), "quantization_config"),
        (dict(hidden_act="gelu"), "hidden_act=gelu"),
        (dict(use_sliding_window=True, sliding_window=8, max_window_layers=1), "sliding_window in use"),
        (dict(layer_types=["full_attention", "sliding_attention"]), "sliding_window in use"),
        (dict(rope_scaling=dict(rope_type="dynamic", factor=2.0)), "rope type 'dynamic' is not supported"),
        (dict(rope_parameters=dict(rope_type="longrope", factor=2.0)), "rope type 'longrope' is not supported"),
        (
            dict(rope_scaling=dict(rope_type="llama3", factor=2.0, original_max_position_embeddings=8)),
            r"missing \['low_freq_factor', 'high_freq_factor'\]",
        ),
        (dict(rope_scaling=dict(rope_type="linear", factor=2.0, surprise=1)), r"unknown \['surprise'\]"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (dict(num_attention_heads=3), "num_attention_heads=3 is no multiple of num_key_value_heads=2"),
        (dict(head_dim=15), "head_dim=15"),
        (dict(vocab_size=0), "vocab_size=0"),
        (dict(hidden_size="64"), "no number"),
    ],
)
def test_what_has_no_place_is_refused_by_name(change, message):
    with pytest.raises(BadInput, match=message):
        DecoderConfig.from_hf(LLAMA | change)


def test_missing_entry():
    with pytest.raises(BadInput, match="no entry 'intermediate_size'; a llama model needs it"):
        DecoderConfig.from_hf({k: v for k, v in LLAMA.items() if k != "intermediate_size"})


def test_an_unused_sliding_window_is_fine():
    DecoderConfig.from_hf(LLAMA | dict(use_sliding_window=False, sliding_window=4096, max_window_layers=1))
    DecoderConfig.from_hf(LLAMA | dict(use_sliding_window=True, sliding_window=4096, max_window_layers=3))
