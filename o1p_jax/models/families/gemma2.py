"""Gemma 2: norms around both halves of a layer, 1 + weight, soft caps, every other layer with a window."""

from typing import Any

from o1p_jax.models.families.common import LLAMA_NAMES, POST_NORM_NAMES, Entries, Family, windows_every_other_layer

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
    """Returns the fields of `DecoderConfig` that Gemma does not read as Llama does."""
    return dict(
        post_norm=True,
        norm_offset=1.0,
        norm_in_float32=True,
        embed_scale=hf["hidden_size"] ** 0.5,
        attention_scale=hf["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=hf["attn_logit_softcapping"],
        logit_softcap=hf["final_logit_softcapping"],
    )


FAMILY = Family(
    names=NAMES,
    defaults=DEFAULTS | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    layers=windows_every_other_layer,
    fields=fields,
    expected={"use_bidirectional_attention": False},
)
