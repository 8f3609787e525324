"""Gemma 2: norms around both halves of a layer, 1 + weight, soft caps, every other layer with a window."""

from typing import Any

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import LLAMA_NAMES, POST_NORM_NAMES, Entries, Family, layers_by_type

NAMES = LLAMA_NAMES | POST_NORM_NAMES | {"mlp_norm": ("model.layers.{}.pre_feedforward_layernorm.weight", "D -> D")}
DEFAULTS = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
}


def fields(hf: Entries) -> dict[str, Any]:
    return dict(
        post_norm=True,
        norm_offset=1.0,
        norm_in_float32=True,
        embed_scale=hf["hidden_size"] ** 0.5,
        attention_scale=hf["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=hf["attn_logit_softcapping"],
        logit_softcap=hf["final_logit_softcapping"],
    )


def _layers(hf: Entries) -> list[LayerKind]:
    n = hf["num_hidden_layers"]
    types = hf.get("layer_types") or [("full_attention" if i % 2 else "sliding_attention") for i in range(n)]
    return layers_by_type(hf, types, window=hf["sliding_window"])


FAMILY = Family(
    names=NAMES,
    defaults=DEFAULTS | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    layers=_layers,
    fields=fields,
    expected={"use_bidirectional_attention": False},
)
