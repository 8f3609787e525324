"""Mistral: Magistral (its text model), Mistral-7B with its windows."""

from o1p_jax.models.families.common import LLAMA_NAMES, Family, windows_everywhere

FAMILY = Family(
    names=LLAMA_NAMES,
    defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    layers=windows_everywhere,
    fields=lambda hf: dict(qkv_bias=False, o_bias=False),
)
