"""Gemma 3 (text): Gemma 2 with norms of queries and keys, two ropes, five layers with windows to one without."""

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import QK_NORM_NAMES, Entries, Family, layers_by_type, read_ropes_by_type
from o1p_jax.models.families.gemma2 import DEFAULTS, NAMES, fields


def _layers(hf: Entries) -> list[LayerKind]:
    n, period = hf["num_hidden_layers"], hf.get("sliding_window_pattern") or 6
    types = hf.get("layer_types") or [("sliding_attention" if (i + 1) % period else "full_attention") for i in range(n)]
    theta = {"full_attention": hf["rope_theta"], "sliding_attention": hf["rope_local_base_freq"]}
    return layers_by_type(hf, types, window=hf["sliding_window"], ropes=read_ropes_by_type(hf, theta))


FAMILY = Family(
    names=NAMES | QK_NORM_NAMES,
    defaults=DEFAULTS
    | {
        "max_position_embeddings": 131072,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    layers=_layers,
    # transformers reads a soft cap of the attention scores, and never applies it.
    fields=lambda hf: fields(hf) | dict(qk_norm="head", attention_softcap=None),
    expected={"use_bidirectional_attention": False},
)
