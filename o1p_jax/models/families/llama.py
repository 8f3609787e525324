"""Llama: R1-Distill-Llama, SmolLM2, Nemotron and many more."""

from o1p_jax.models.families.common import LLAMA_NAMES, Family

FAMILY = Family(names=LLAMA_NAMES, fields=lambda hf: dict(mlp_bias=bool(hf["mlp_bias"])))
