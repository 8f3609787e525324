"""Granite: Llama with four multipliers."""

from o1p_jax.models.families.common import LLAMA_NAMES, Family

FAMILY = Family(
    names=LLAMA_NAMES,
    defaults={
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    },
    fields=lambda hf: dict(
        mlp_bias=bool(hf["mlp_bias"]),
        embed_scale=float(hf["embedding_multiplier"]),
        attention_scale=float(hf["attention_multiplier"]),
        residual_scale=float(hf["residual_multiplier"]),
        logit_scale=1.0 / float(hf["logits_scaling"]),
    ),
)
