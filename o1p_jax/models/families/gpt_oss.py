"""gpt-oss: experts with biases, attention sinks, every other layer with a window."""

from typing import Any

from o1p_jax.models.config import SwiGluConfig
from o1p_jax.models.families.common import LLAMA_NAMES, Entries, Family, read_experts, windows_every_other_layer

_MLP = "model.layers.{}.mlp."


def _fields(hf: Entries) -> dict[str, Any]:
    return dict(
        experts=read_experts(hf, router_bias=True),
        mlp_bias=True,
        swiglu=SwiGluConfig(alpha=float(hf["swiglu_alpha"]), limit=float(hf["swiglu_limit"])),
        norm_in_float32=True,
        attention_sinks=True,
    )


FAMILY = Family(
    names=LLAMA_NAMES
    | {
        "sinks": ("model.layers.{}.self_attn.sinks", "H -> H"),
        "router": (_MLP + "router.weight", "DE -> E,D"),
        "router_bias": (_MLP + "router.bias", "E -> E"),
        "gate": (_MLP + "experts.gate_up_proj", "EDF -> E,D,2F"),
        "up": (_MLP + "experts.gate_up_proj", "EDF -> E,D,2F+1"),
        "down": (_MLP + "experts.down_proj", "EFD -> E,F,D"),
        "gate_bias": (_MLP + "experts.gate_up_proj_bias", "EF -> E,2F"),
        "up_bias": (_MLP + "experts.gate_up_proj_bias", "EF -> E,2F+1"),
        "down_bias": (_MLP + "experts.down_proj_bias", "ED -> E,D"),
    },
    defaults={
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "rope_theta": 150000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        "sliding_window": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    },
    layers=windows_every_other_layer,
    fields=_fields,
)
