"""Mixtral: Mistral with experts."""

from o1p_jax.models.families.common import LLAMA_NAMES, Family, read_experts, windows_everywhere

_EXPERT = "model.layers.{}.block_sparse_moe.experts.{}."

FAMILY = Family(
    names=LLAMA_NAMES
    | {
        "router": ("model.layers.{}.block_sparse_moe.gate.weight", "DE -> E,D"),
        "gate": (_EXPERT + "w1.weight", "DF -> F,D"),
        "up": (_EXPERT + "w3.weight", "DF -> F,D"),
        "down": (_EXPERT + "w2.weight", "FD -> D,F"),
    },
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    layers=windows_everywhere,
    fields=lambda hf: dict(qkv_bias=False, o_bias=False, experts=read_experts(hf)),
)
