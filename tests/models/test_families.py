import re
from pathlib import Path

import pytest
from tiny_models import CASES, SIZES
from transformers import CONFIG_MAPPING

from o1p_jax.models.config import LayerKind, RopeConfig
from o1p_jax.models.families import FAMILIES, read_config
from o1p_jax.runtime.errors import BadInput

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_out_is_as_transformers_takes_it(family):
    sizes = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "max_position_embeddings")}
    sizes |= dict(num_hidden_layers=30, num_attention_heads=32, hidden_size=128)
    everything = CONFIG_MAPPING[family](**sizes).to_dict()
    assert read_config(sizes | dict(model_type=family)) == read_config(everything)


def test_every_row_of_the_table_is_a_family_and_has_a_case():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "families.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(FAMILIES)
    assert {config.model_type for config in CASES.values()} == set(FAMILIES)


def test_a_family_is_one_short_file():
    for file in (ROOT / "o1p_jax" / "models" / "families").glob("*.py"):
        assert file.name == "common.py" or len(file.read_text().splitlines()) <= 120, file.name


def test_rope_of_transformers_4():
    old = read_config(LLAMA | dict(rope_theta=500000, rope_scaling=dict(type="linear", factor=2)))
    assert old.kinds == (LayerKind(rope=RopeConfig(rope_type="linear", rope_theta=500000.0, factor=2.0)),)
    yarn = dict(type="yarn", factor=4.0)
    (kind,) = read_config(LLAMA | dict(max_position_embeddings=128, rope_scaling=yarn)).kinds
    assert kind.rope.original_max_position_embeddings == 128


def test_ropes_of_gemma_3_in_transformers_4():
    old = dict(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=dict(rope_type="linear", factor=8.0))
    config = read_config(LLAMA | dict(model_type="gemma3_text", num_hidden_layers=12, sliding_window=64) | old)
    local = LayerKind(rope=RopeConfig(rope_theta=1e4), window=64)
    whole = LayerKind(rope=RopeConfig(rope_type="linear", rope_theta=1e6, factor=8.0))
    assert config.kinds == (local, whole)
    assert config.pattern == (0, 0, 0, 0, 0, 1) * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model_type="mamba"), "model_type='mamba' is not supported; these are: gemma2, gemma3_text, gpt_oss"),
        (dict(model_type=None), "model_type=None"),
        (dict(auto_map={"AutoModel": "x.Y"}), "auto_map"),
        (dict(quantization_config={"bits": 4}), "quantization_config"),
        (dict(hidden_act="relu2"), "hidden_act=relu2"),
        (dict(model_type="gemma2", hidden_activation="relu"), "hidden_activation=relu"),
        (dict(model_type="gemma2", use_bidirectional_attention=True), "use_bidirectional_attention=True"),
        (dict(model_type="qwen2", layer_types=["chunked_attention"] * 3), "layer_types: chunked_attention"),
        (dict(model_type="qwen2", layer_types=["full_attention"] * 2), "2 layer types for num_hidden_layers=3"),
        (dict(model_type="mistral", sliding_window=0), "sliding_window=0"),
        (dict(rope_scaling=dict(rope_type="su", factor=2.0)), "rope type 'su' is not supported"),
        (dict(rope_parameters=dict(rope_type="longrope", factor=2.0)), "missing \\['short_factor', 'long_factor'\\]"),
        (
            dict(rope_scaling=dict(rope_type="llama3", factor=2.0, original_max_position_embeddings=8)),
            r"missing \['low_freq_factor', 'high_freq_factor'\]",
        ),
        (dict(rope_scaling=dict(rope_type="linear", factor=None)), r"rope type linear: missing \['factor'\]"),
        (dict(rope_scaling="yarn"), "no number"),
        (dict(model_type="phi3", partial_rotary_factor=0.2), "head_dim=16"),
        (
            dict(partial_rotary_factor=0.5, rope_scaling=dict(rope_type="linear", factor=2.0)),
            "partial_rotary_factor=0.5",
        ),
        (
            dict(rope_scaling=dict(type="longrope", factor=2.0, short_factor=[1.0] * 8, long_factor=[1.0] * 7)),
            "long_factor: 7 numbers for 8 rotated pairs",
        ),
        (dict(model_type="smollm3", no_rope_layers=[1, 0]), "no_rope_layers: 2 entries for num_hidden_layers=3"),
        (dict(num_attention_heads=3), "num_attention_heads=3 is no multiple of num_key_value_heads=2"),
        (dict(head_dim=15), "head_dim=15"),
        (dict(vocab_size=0), "vocab_size=0"),
        (dict(model_type="mixtral", num_experts_per_tok=9), "num_experts_per_tok=9: must lie between 1 and 8"),
        (dict(model_type="mixtral", num_experts_per_tok=1.5), "num_experts_per_tok=1.5: must be a whole number"),
        (dict(model_type="mixtral", num_local_experts=7.5), "num_experts=7.5: must be a whole number"),
        (dict(model_type="mixtral", num_local_experts="8"), "num_experts='8': must be a whole number"),
        (dict(model_type="qwen3_moe", mlp_only_layers=[0]), "only experts in every layer"),
        (dict(model_type="qwen3_moe", decoder_sparse_step=2), "only experts in every layer"),
        (dict(hidden_size="64"), "no number"),
    ],
)
def test_what_has_no_place_is_refused_by_name(change, message):
    with pytest.raises(BadInput, match=message):
        read_config(LLAMA | change)


YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (dict(rope_scaling=YARN | dict(attn_factor=0.9, finetuned=True)), dict(rope_scaling=YARN)),
        (dict(rope_scaling=YARN | dict(factor=None)), dict(rope_scaling=YARN | dict(factor=32.0))),
        (dict(rope_scaling=YARN | dict(attention_factor=None)), dict(rope_scaling=YARN)),
        (dict(rope_scaling=dict(type="default", mrope_section=[4, 2, 2], factor=8.0)), dict()),
        (dict(rope_scaling=dict(rope_type=None, short_factor=[1.0])), dict()),
        (
            dict(rope_scaling=dict(type="linear", factor=2, beta_fast=7)),
            dict(rope_scaling=dict(type="linear", factor=2)),
        ),
        (dict(partial_rotary_factor=0.5), dict()),
        (dict(rope_parameters=dict(rope_type="default", partial_rotary_factor=0.25)), dict()),
        (dict(quantization_config={}), dict()),
        (
            dict(model_type="smollm3", no_rope_layers=[1, 0, 1, 0, 1, 1]),
            dict(model_type="smollm3", no_rope_layers=[1, 0, 1]),
        ),
    ],
)
def test_what_transformers_ignores_is_ignored(change, same):
    assert read_config(LLAMA | change) == read_config(LLAMA | same)


def test_an_entry_that_no_rope_reads_is_told_once(capsys):
    for _ in range(2):
        read_config(LLAMA | dict(rope_scaling=YARN | dict(magic=1.0)))
    assert capsys.readouterr().err == "config.json: rope type yarn reads no magic; ignored, as transformers does\n"


def test_missing_entry():
    with pytest.raises(BadInput, match="no entry 'intermediate_size'; a llama model needs it"):
        read_config({k: v for k, v in LLAMA.items() if k != "intermediate_size"})


def test_an_unused_sliding_window_is_none():
    for unused in (dict(use_sliding_window=False, max_window_layers=1), dict(use_sliding_window=True)):
        assert read_config(LLAMA | dict(model_type="qwen2", sliding_window=8) | unused).kinds == (LayerKind(),)
