"""Qwen3's mixtures of experts (Qwen3-30B-A3B, Qwen3-235B-A22B): Qwen3 with experts in every layer."""

from typing import Any

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import LLAMA_NAMES, QK_NORM_NAMES, Entries, Family, read_experts, windows_everywhere
from o1p_jax.runtime.errors import BadInput

_EXPERT = "model.layers.{}.mlp.experts.{}."


def _fields(hf: Entries) -> dict[str, Any]:
    if hf["decoder_sparse_step"] != 1 or hf["mlp_only_layers"]:
        raise BadInput("config.json: decoder_sparse_step, mlp_only_layers: only experts in every layer are supported")
    experts = read_experts(hf, normalize=bool(hf["norm_topk_prob"]))
    return dict(experts=experts, mlp_size=hf["moe_intermediate_size"], qk_norm="head")


def _layers(hf: Entries) -> list[LayerKind]:
    return windows_everywhere(hf if hf["use_sliding_window"] else hf | {"sliding_window": None})


FAMILY = Family(
    names=LLAMA_NAMES
    | QK_NORM_NAMES
    | {
        "router": ("model.layers.{}.mlp.gate.weight", "DE -> E,D"),
        "gate": (_EXPERT + "gate_proj.weight", "DF -> F,D"),
        "up": (_EXPERT + "up_proj.weight", "DF -> F,D"),
        "down": (_EXPERT + "down_proj.weight", "FD -> D,F"),
    },
    defaults={
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
        "moe_intermediate_size": 768,
        "num_local_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
    },
    layers=_layers,
    fields=_fields,
)
