"""Qwen2 and Qwen2.5: R1-Distill-Qwen, QwQ, Marco-o1, Open-Reasoner."""

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import LLAMA_NAMES, Entries, Family, layers_by_type

DEFAULTS = {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def layers(hf: Entries) -> list[LayerKind]:
    """Windows from layer `max_window_layers` on, if they are used at all."""
    n = hf["num_hidden_layers"]
    window = hf["sliding_window"] if hf["use_sliding_window"] else None
    first = hf["max_window_layers"] if window else n
    types = hf.get("layer_types") or [("full_attention" if i < first else "sliding_attention") for i in range(n)]
    return layers_by_type(hf, types, window=window)


FAMILY = Family(
    names=LLAMA_NAMES, defaults=DEFAULTS, layers=layers, fields=lambda hf: dict(qkv_bias=True, o_bias=False)
)
