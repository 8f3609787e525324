"""The decoder's configuration, read from and written as a Hugging Face config.json.

What the decoder can't express is refused by name: an ignored entry would give wrong numbers without an error.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from o1p_jax.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family of models differs from the common decoder."""

    architecture: str
    qkv_bias: bool | str = False
    """A string names the config.json entry that decides, False where it is absent."""
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool = False
    head_dim: int | None = None
    """Where config.json names none; None is hidden_size / num_attention_heads."""


FAMILIES = {
    "llama": Family(
        architecture="LlamaForCausalLM", qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"
    ),
    "qwen2": Family(architecture="Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM", qkv_bias="attention_bias", o_bias="attention_bias", qk_norm=True, head_dim=128
    ),
}
"""model_type -> what is its own."""

_ROPE_TYPES = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
"""rope_type -> entries it can't do without."""


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; the fields are the entries of transformers' `rope_parameters`."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and switches of a dense decoder."""

    family: str
    """Key of `FAMILIES`."""
    vocab_size: int
    hidden_size: int
    mlp_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int = 2048
    norm_eps: float = 1e-6
    init_std: float = 0.02
    tied: bool = False
    """The output projection is the embedding."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rope: RopeConfig = RopeConfig()

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type is int and not (isinstance(value, int) and value >= 1):
                raise BadInput(f"config.json: {f.name}={value}: must be a whole number of at least 1")
        if self.heads % self.kv_heads:
            raise BadInput(
                f"config.json: num_attention_heads={self.heads} is no multiple of num_key_value_heads={self.kv_heads}"
            )
        if self.head_dim % 2:
            raise BadInput(f"config.json: head_dim={self.head_dim}: must be even, RoPE rotates pairs")

    @classmethod
    def from_hf(cls, hf: dict[str, Any]) -> "DecoderConfig":
        """Reads the content of a config.json of transformers 4 or 5; raises `BadInput` for what has no place here."""
        family = FAMILIES.get(hf.get("model_type", ""))
        if family is None:
            raise BadInput(
                f"config.json: model_type={hf.get('model_type')!r} is not supported; these are: {', '.join(FAMILIES)}"
            )
        _refuse_inexpressible(hf)
        try:
            heads, hidden = hf["num_attention_heads"], hf["hidden_size"]

            def switch(value: bool | str) -> bool:
                return bool(hf.get(value, False)) if isinstance(value, str) else value

            return cls(
                family=hf["model_type"],
                vocab_size=hf["vocab_size"],
                hidden_size=hidden,
                mlp_size=hf["intermediate_size"],
                layers=hf["num_hidden_layers"],
                heads=heads,
                kv_heads=hf.get("num_key_value_heads") or heads,
                head_dim=hf.get("head_dim") or family.head_dim or hidden // heads,
                max_positions=hf.get("max_position_embeddings", cls.max_positions),
                norm_eps=float(hf.get("rms_norm_eps", cls.norm_eps)),
                init_std=float(hf.get("initializer_range", cls.init_std)),
                tied=bool(hf.get("tie_word_embeddings", False)),
                qkv_bias=switch(family.qkv_bias),
                o_bias=switch(family.o_bias),
                mlp_bias=switch(family.mlp_bias),
                qk_norm=family.qk_norm,
                rope=_rope_from_hf(hf),
            )
        except KeyError as e:
            raise BadInput(f"config.json: no entry {e}; a {hf['model_type']} model needs it") from None
        except (TypeError, ZeroDivisionError) as e:
            raise BadInput(f"config.json: an entry is no number ({e}); restore the file") from None

    def to_hf(self) -> dict[str, Any]:
        """A config.json that transformers 4 and 5 and vLLM read; `from_hf` is its inverse."""
        family = FAMILIES[self.family]
        switches = {}
        for entry, value in (("qkv_bias", self.qkv_bias), ("o_bias", self.o_bias), ("mlp_bias", self.mlp_bias)):
            key = getattr(family, entry)
            if isinstance(key, str):
                switches[key] = value
        rope = {k: v for k, v in dataclasses.asdict(self.rope).items() if v is not None}
        theta = rope.pop("rope_theta")
        return {
            "architectures": [family.architecture],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.mlp_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "initializer_range": self.init_std,
            "tie_word_embeddings": self.tied,
            "rope_theta": theta,
            "rope_scaling": None if self.rope.rope_type == "default" else rope,
            **switches,
        }

    def axis_sizes(self) -> dict[str, tuple[str, int]]:
        """The dimensions a mesh must divide, for `mesh.check_divides`."""
        return {
            "hidden_size": ("embed", self.hidden_size),
            "num_attention_heads": ("heads", self.heads),
            "num_key_value_heads": ("kv_heads", self.kv_heads),
            "intermediate_size": ("mlp", self.mlp_size),
            "vocab_size": ("vocab", self.vocab_size),
        }


def _refuse_inexpressible(hf: dict[str, Any]) -> None:
    def refuse(bad: bool, what: str, remedy: str) -> None:
        if bad:
            raise BadInput(f"config.json: {what}: {remedy}")

    refuse("auto_map" in hf, "auto_map", "the model brings its own code, which is never run; use a model without")
    refuse(
        hf.get("quantization_config") is not None,
        "quantization_config",
        "quantized weights can't be trained; use the unquantized model",
    )
    act = hf.get("hidden_act", "silu")
    refuse(act not in ("silu", "swish"), f"hidden_act={act}", "only silu is supported")
    if hf.get("layer_types"):
        sliding = set(hf["layer_types"]) != {"full_attention"}
    else:
        sliding = bool(
            hf.get("use_sliding_window")
            and hf.get("sliding_window")
            and hf.get("max_window_layers", 28) < hf.get("num_hidden_layers", 0)
        )
    refuse(sliding, "sliding_window in use", "only full attention is supported")


def _rope_from_hf(hf: dict[str, Any]) -> RopeConfig:
    """transformers 5 has `rope_parameters`, 4 had `rope_theta` beside `rope_scaling` (with `type` for `rope_type`)."""
    rope = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    old_kind = rope.pop("type", None)
    kind = rope.pop("rope_type", None) or old_kind or "default"
    if kind not in _ROPE_TYPES:
        raise BadInput(f"config.json: rope type {kind!r} is not supported; these are: {', '.join(_ROPE_TYPES)}")
    if rope.pop("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0)) not in (1.0, None):
        raise BadInput("config.json: partial_rotary_factor: only rotation of the whole head is supported")
    if kind in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = (
            hf.get("original_max_position_embeddings")
            or rope.get("original_max_position_embeddings")
            or hf.get("max_position_embeddings")
        )
    rope["rope_theta"] = rope.get("rope_theta") or hf.get("rope_theta") or RopeConfig.rope_theta
    fields = {f.name: f.type for f in dataclasses.fields(RopeConfig)}
    missing, unknown = [k for k in _ROPE_TYPES[kind] if rope.get(k) is None], sorted(set(rope) - set(fields))
    if missing or unknown:
        raise BadInput(f"config.json: rope type {kind}: missing {missing}, unknown {unknown}")
    values: dict[str, Any] = {
        key: float(value) if value is not None and fields[key] in (float, float | None) else value
        for key, value in rope.items()
    }
    return RopeConfig(rope_type=kind, **values)
