"""OLMo 3 and OLMo-3-Think: OLMo 2 with windows in three layers of four; those layers' rope is never rescaled."""

from o1p_jax.models.config import LayerKind
from o1p_jax.models.families.common import Entries, Family, layers_by_type, read_ropes_by_type
from o1p_jax.models.families.olmo2 import FIELDS, NAMES


def _layers(hf: Entries) -> list[LayerKind]:
    n = hf["num_hidden_layers"]
    types = hf.get("layer_types") or [("sliding_attention" if (i + 1) % 4 else "full_attention") for i in range(n)]
    theta = {t: hf["rope_theta"] for t in ("full_attention", "sliding_attention")}
    return layers_by_type(hf, types, window=hf["sliding_window"], ropes=read_ropes_by_type(hf, theta))


FAMILY = Family(
    names=NAMES,
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 5e5, "sliding_window": 4096},
    layers=_layers,
    fields=lambda hf: FIELDS,
)
