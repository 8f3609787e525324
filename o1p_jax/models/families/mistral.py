"""Mistral: Magistral (its text model), Mistral-7B with its windows."""

from o1p_jax.models.families.common import LLAMA_NAMES, Family, layers_by_type

FAMILY = Family(
    names=LLAMA_NAMES,
    defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    layers=lambda hf: layers_by_type(hf, ["sliding_attention"] * hf["num_hidden_layers"], window=hf["sliding_window"]),
    fields=lambda hf: dict(qkv_bias=False, o_bias=False),
)
