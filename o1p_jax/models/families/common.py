"""What the families share: how config.json is read, and Llama's names of the tensors.

A family is a module beside this one with a `FAMILY`; its docstring names the models that it is for. An entry that
config.json leaves out means what transformers takes it for: the family's `defaults`, else Llama's.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from o1p_jax.models.config import DecoderConfig, ExpertsConfig, LayerKind, RopeConfig
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say_once

Entries = dict[str, Any]
"""The content of a config.json."""
LLAMA_NAMES = {
    "embed": ("model.embed_tokens.weight", "VD -> V,D"),
    "norm": ("model.norm.weight", "D -> D"),
    "head": ("lm_head.weight", "DV -> V,D"),
    "attn_norm": ("model.layers.{}.input_layernorm.weight", "D -> D"),
    "q": ("model.layers.{}.self_attn.q_proj.weight", "DHK -> HK,D"),
    "k": ("model.layers.{}.self_attn.k_proj.weight", "DGK -> GK,D"),
    "v": ("model.layers.{}.self_attn.v_proj.weight", "DGK -> GK,D"),
    "o": ("model.layers.{}.self_attn.o_proj.weight", "HKD -> D,HK"),
    "q_bias": ("model.layers.{}.self_attn.q_proj.bias", "HK -> HK"),
    "k_bias": ("model.layers.{}.self_attn.k_proj.bias", "GK -> GK"),
    "v_bias": ("model.layers.{}.self_attn.v_proj.bias", "GK -> GK"),
    "o_bias": ("model.layers.{}.self_attn.o_proj.bias", "D -> D"),
    "mlp_norm": ("model.layers.{}.post_attention_layernorm.weight", "D -> D"),
    "gate": ("model.layers.{}.mlp.gate_proj.weight", "DF -> F,D"),
    "up": ("model.layers.{}.mlp.up_proj.weight", "DF -> F,D"),
    "down": ("model.layers.{}.mlp.down_proj.weight", "FD -> D,F"),
    "gate_bias": ("model.layers.{}.mlp.gate_proj.bias", "F -> F"),
    "up_bias": ("model.layers.{}.mlp.up_proj.bias", "F -> F"),
    "down_bias": ("model.layers.{}.mlp.down_proj.bias", "D -> D"),
}
QK_NORM_NAMES = {
    "q_norm": ("model.layers.{}.self_attn.q_norm.weight", "K -> K"),
    "k_norm": ("model.layers.{}.self_attn.k_norm.weight", "K -> K"),
}
POST_NORM_NAMES = {
    "attn_post_norm": ("model.layers.{}.post_attention_layernorm.weight", "D -> D"),
    "mlp_post_norm": ("model.layers.{}.post_feedforward_layernorm.weight", "D -> D"),
}
_DEFAULTS: Entries = {
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
}
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_EVERY_ROPE = ("rope_theta", "partial_rotary_factor")
_ROPE_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor", "original_max_position_embeddings"), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), ()),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": (("factor", "short_factor", "long_factor", "original_max_position_embeddings"), ("attention_factor",)),
}
"""rope_type -> the entries that it can't do without, and those that it reads besides them and `_EVERY_ROPE`."""


def all_layers_alike(hf: Entries) -> list[LayerKind]:
    """Returns layers with full attention and one rotary embedding."""
    return [LayerKind(rope=read_rope(hf))] * hf["num_hidden_layers"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one `model_type` are read and written."""

    names: dict[str, tuple[str, str]]
    """The decoder's name of a weight -> (Hugging Face's name, its axes): see hf/names.py."""
    defaults: Entries = field(default_factory=dict)
    """Entries that a config.json may leave out, where they differ from Llama's."""
    fields: Callable[[Entries], dict[str, Any]] = lambda hf: {}
    """Fields of `DecoderConfig` that are not read as Llama's are."""
    layers: Callable[[Entries], list[LayerKind]] = all_layers_alike
    """The kind of each layer."""
    expected: Entries = field(default_factory=dict)
    """Entries that must have this value, because the decoder can't express another."""
    partial_rotation: bool = False
    """Whether `partial_rotary_factor` counts; in the other families transformers rotates whole heads regardless."""


def read(hf: Entries, family: Family) -> DecoderConfig:
    """Returns the configuration that `hf` describes. Raises `BadInput` for a setting that the decoder can't express."""
    hf = _DEFAULTS | family.defaults | hf
    _refuse_inexpressible(hf, family)
    try:
        layers = family.layers(hf)
        if not family.partial_rotation:
            whole = {layer: _with_whole_heads(layer) for layer in dict.fromkeys(layers)}
            layers = [whole[layer] for layer in layers]
        if len(layers) != hf["num_hidden_layers"]:
            raise BadInput(f"config.json: {len(layers)} layer types for num_hidden_layers={hf['num_hidden_layers']}")
        kinds = tuple(dict.fromkeys(layers))
        heads, hidden = hf["num_attention_heads"], hf["hidden_size"]
        common: dict[str, Any] = dict(
            family=hf["model_type"],
            vocab_size=hf["vocab_size"],
            hidden_size=hidden,
            mlp_size=hf["intermediate_size"],
            layers=hf["num_hidden_layers"],
            heads=heads,
            kv_heads=hf.get("num_key_value_heads") or heads,
            head_dim=hf.get("head_dim") or hidden // heads,
            max_positions=hf["max_position_embeddings"],
            kinds=kinds,
            pattern=None if len(kinds) == 1 else tuple(kinds.index(layer) for layer in layers),
            tied=bool(hf["tie_word_embeddings"]),
            qkv_bias=bool(hf["attention_bias"]),
            o_bias=bool(hf["attention_bias"]),
            activation=_ACTIVATIONS[hf[_activation_entry(hf)]],
            norm_eps=float(hf["rms_norm_eps"]),
            init_std=float(hf["initializer_range"]),
        )
        return DecoderConfig(**common | family.fields(hf))
    except BadInput:
        raise
    except KeyError as e:
        raise BadInput(f"config.json: no entry {e}; a {hf['model_type']} model needs it") from None
    except (TypeError, ValueError, ZeroDivisionError) as e:
        raise BadInput(f"config.json: an entry is no number ({e}); restore the file") from None


def layers_by_type(
    hf: Entries, types: list[str], *, window: int | None, ropes: dict[str, RopeConfig] | None = None
) -> list[LayerKind]:
    """Returns a layer for each of `types` ('full_attention' or 'sliding_attention').

    `ropes` gives each type a rotary embedding of its own; left out, all layers share one.
    """
    if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
        raise BadInput(f"config.json: layer_types: {unknown[0]} is not supported")
    if ropes is None:
        ropes = dict.fromkeys(types, read_rope(hf))
    windows = {"full_attention": None, "sliding_attention": window}
    return [LayerKind(rope=ropes[t], window=windows[t]) for t in types]


def windows_everywhere(hf: Entries) -> list[LayerKind]:
    """Returns layers that all have the window `sliding_window`; None is no window."""
    return layers_by_type(hf, ["sliding_attention"] * hf["num_hidden_layers"], window=hf["sliding_window"])


def windows_every_other_layer(hf: Entries) -> list[LayerKind]:
    """Returns layers as `layer_types` says; left out, every other layer has a window, the first one included."""
    n = hf["num_hidden_layers"]
    types = hf.get("layer_types") or [("full_attention" if i % 2 else "sliding_attention") for i in range(n)]
    return layers_by_type(hf, types, window=hf["sliding_window"])


def read_experts(hf: Entries, **switches: bool) -> ExpertsConfig:
    """Returns the experts; transformers writes `num_local_experts` and reads `num_experts` as well."""
    count, per_token = hf.get("num_experts") or hf["num_local_experts"], hf["num_experts_per_tok"]
    for name, value in (("num_experts", count), ("num_experts_per_tok", per_token)):
        if not isinstance(value, int):
            raise BadInput(f"config.json: {name}={value!r}: must be a whole number")
    return ExpertsConfig(count=count, per_token=per_token, **switches)


def read_rope(hf: Entries) -> RopeConfig:
    """Returns the rotary embedding of all layers.

    transformers 5 writes `rope_parameters`; 4 wrote `rope_theta` beside `rope_scaling` (with `type` for `rope_type`).
    """
    return parse_rope(hf.get("rope_scaling") or hf.get("rope_parameters") or {}, hf, hf["rope_theta"])


def read_ropes_by_type(hf: Entries, theta: dict[str, float | int]) -> dict[str, RopeConfig]:
    """Returns a rotary embedding for each layer type of `theta`.

    A `rope_scaling` of transformers 4 is that of the full attention. transformers reads `truncate`, and the model's own
    `original_max_position_embeddings`, for models with one rotary embedding only.
    """
    nested = hf.get("rope_parameters") or {}
    ropes = {t: dict(nested.get(t) or {}) for t in theta}
    ropes["full_attention"] |= hf.get("rope_scaling") or {}
    hf = hf | {"original_max_position_embeddings": None}
    return {t: parse_rope(rope | {"truncate": None}, hf, theta[t]) for t, rope in ropes.items()}


def parse_rope(rope: Entries, hf: Entries, theta: float | int) -> RopeConfig:
    """Returns the rotary embedding with the entries `rope` of `rope_parameters`.

    `theta` is the base where `rope` holds none. Entries that the rope type does not read are left out, as transformers
    leaves them out; one line names those that no rope type reads.
    """
    rope = dict(rope)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in _ROPE_TYPES:
        raise BadInput(f"config.json: rope type {kind!r} is not supported; these are: {', '.join(_ROPE_TYPES)}")
    needed, optional = _ROPE_TYPES[kind]
    types = {f.name: f.type for f in dataclasses.fields(RopeConfig)}
    if unknown := sorted(set(rope) - set(types) - {"type"}):
        say_once(f"config.json: rope type {kind} reads no {', '.join(unknown)}; ignored, as transformers does")
    rope = {key: rope[key] for key in (*_EVERY_ROPE, *needed, *optional) if rope.get(key) is not None}
    longest = hf["max_position_embeddings"]
    if kind in ("llama3", "yarn", "longrope") and hf.get("original_max_position_embeddings"):
        rope["original_max_position_embeddings"] = hf["original_max_position_embeddings"]
    if kind == "dynamic":  # transformers counts from the model's own length
        rope["original_max_position_embeddings"] = longest
    elif "original_max_position_embeddings" in needed:
        rope.setdefault("original_max_position_embeddings", longest)
    if kind in ("yarn", "longrope"):
        rope.setdefault("factor", longest / rope["original_max_position_embeddings"])
    rope.setdefault("rope_theta", theta)
    rope.setdefault("partial_rotary_factor", hf.get("partial_rotary_factor") or 1.0)
    if missing := [key for key in needed if key not in rope]:
        raise BadInput(f"config.json: rope type {kind}: missing {missing}")
    values: dict[str, Any] = {
        key: float(value) if types[key] in (float, float | None) else value for key, value in rope.items()
    }
    for key in {"short_factor", "long_factor"} & values.keys():
        values[key] = tuple(float(x) for x in values[key])
    return RopeConfig(rope_type=kind, **values)


def _with_whole_heads(layer: LayerKind) -> LayerKind:
    """The layer as transformers computes it in a family whose heads are rotated whole."""
    rope = layer.rope
    if rope is None or rope.partial_rotary_factor == 1:
        return layer
    entry = f"config.json: partial_rotary_factor={rope.partial_rotary_factor}"
    if rope.rope_type != "default":
        raise BadInput(
            f"{entry} with rope type {rope.rope_type}: transformers can't compute it in this family; take the entry "
            "out if whole heads are rotated"
        )
    say_once(f"{entry}: ignored, as transformers ignores it in this family")
    return replace(layer, rope=replace(rope, partial_rotary_factor=1.0))


def _activation_entry(hf: Entries) -> str:
    """The entry that counts: where a family knows `hidden_activation`, a `hidden_act` beside it is a leftover."""
    return "hidden_activation" if "hidden_activation" in hf else "hidden_act"


def _refuse_inexpressible(hf: Entries, family: Family) -> None:
    """Raises `BadInput` for what the decoder can't express, and for models that bring code of their own."""

    def refuse(bad: bool, what: str, remedy: str) -> None:
        if bad:
            raise BadInput(f"config.json: {what}: {remedy}")

    refuse("auto_map" in hf, "auto_map", "the model brings its own code, which is never run; use a model without")
    refuse(
        bool(hf.get("quantization_config")),
        "quantization_config",
        "quantized weights can't be trained; use the unquantized model",
    )
    entry = _activation_entry(hf)
    refuse(
        hf[entry] not in _ACTIVATIONS, f"{entry}={hf[entry]}", f"not supported; these are: {', '.join(_ACTIVATIONS)}"
    )
    for entry, value in family.expected.items():
        refuse(bool(hf.get(entry, value)) != bool(value), f"{entry}={hf.get(entry)}", f"only {value} is supported")
