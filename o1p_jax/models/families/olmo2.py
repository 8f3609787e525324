"""OLMo 2: norms after attention and feed-forward, and one norm over all heads of the queries and of the keys."""

from o1p_jax.models.families.common import LLAMA_NAMES, POST_NORM_NAMES, Family

NAMES = (
    LLAMA_NAMES
    | POST_NORM_NAMES
    | {
        "q_norm": ("model.layers.{}.self_attn.q_norm.weight", "HK -> HK"),
        "k_norm": ("model.layers.{}.self_attn.k_norm.weight", "GK -> GK"),
    }
)
FIELDS = dict(pre_norm=False, post_norm=True, norm_in_float32=True, qk_norm="width")
FAMILY = Family(names=NAMES, defaults={"rms_norm_eps": 1e-5}, fields=lambda hf: FIELDS)
