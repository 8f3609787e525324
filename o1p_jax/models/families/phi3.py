"""Phi-3, Phi-4 and Phi-4-reasoning: queries, keys and values in one tensor, gate and up in another."""

from typing import Any

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import LLAMA_NAMES, Entries, Family, windows_everywhere

_QKV = "model.layers.{}.self_attn.qkv_proj.weight"
_GATE_UP = "model.layers.{}.mlp.gate_up_proj.weight"


def _layers(hf: Entries) -> list[LayerKind]:
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if (rope.get("rope_type") or rope.get("type")) in ("su", "yarn"):  # names of longrope before it had one
        hf = hf | {"rope_scaling": rope | {"rope_type": "longrope"}}
    return windows_everywhere(hf)


def _fields(hf: Entries) -> dict[str, Any]:
    (rope,) = {layer.rope for layer in _layers(hf)}
    switch = rope.original_max_position_embeddings if rope is not None and rope.rope_type == "longrope" else None
    return dict(qkv_bias=False, o_bias=False, recomputed_past=switch)


FAMILY = Family(
    names=LLAMA_NAMES
    | {
        "q": (_QKV, "DHK -> HK,D"),
        "k": (_QKV, "DGK -> GK,D"),
        "v": (_QKV, "DGK -> GK,D"),
        "gate": (_GATE_UP, "DF -> F,D"),
        "up": (_GATE_UP, "DF -> F,D"),
    },
    defaults={
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
    layers=_layers,
    fields=_fields,
    partial_rotation=True,
)
