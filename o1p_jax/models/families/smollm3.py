"""SmolLM3: Llama with layers that do not rotate positions, by default every fourth."""

from dataclasses import replace

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import LLAMA_NAMES, Entries, Family, layers_by_type
from o1p_jax.runtime.errors import BadInput


def _layers(hf: Entries) -> list[LayerKind]:
    n, interval = hf["num_hidden_layers"], hf["no_rope_layer_interval"]
    rotated = hf.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(n)]  # 1 is with rope
    if len(rotated) < n:
        raise BadInput(f"config.json: no_rope_layers: {len(rotated)} entries for num_hidden_layers={n}")
    rotated = rotated[:n]
    window = hf["sliding_window"] if hf["use_sliding_window"] else None
    types = hf.get("layer_types") or [("sliding_attention" if window and not r else "full_attention") for r in rotated]
    layers = layers_by_type(hf, types, window=window)
    return [layer if r else replace(layer, rope=None) for layer, r in zip(layers, rotated, strict=True)]


FAMILY = Family(
    names=LLAMA_NAMES,
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2e6,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "sliding_window": None,
    },
    layers=_layers,
    fields=lambda hf: dict(mlp_bias=bool(hf["mlp_bias"])),
)
