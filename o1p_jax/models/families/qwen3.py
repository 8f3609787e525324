"""Qwen3: norms of every head's queries and keys, and a head size apart from the model's."""

from o1p_jax.models.families.common import LLAMA_NAMES, QK_NORM_NAMES, Family
from o1p_jax.models.families.qwen2 import DEFAULTS, layers

FAMILY = Family(
    names=LLAMA_NAMES | QK_NORM_NAMES,
    defaults=DEFAULTS | {"head_dim": 128},
    layers=layers,
    fields=lambda hf: dict(qk_norm="head"),
)
