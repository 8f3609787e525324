"""The decoder's configuration: one dataclass that describes every family, and the pattern of its layers."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from o1p_jax.runtime.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """A rotary position embedding; the fields are the entries of transformers' `rope_parameters`."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 1.0
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
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class LayerKind:
    """What distinguishes some layers of a model from its other layers."""

    rope: RopeConfig | None = RopeConfig()
    """The rotary embedding; None means that positions are not rotated."""
    window: int | None = None
    """How many tokens a token sees, itself included; None means all before it."""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A feed-forward of experts."""

    count: int
    per_token: int
    """How many experts a token goes to: the likeliest."""
    normalize: bool = True
    """Whether the weights of a token's experts add up to one."""
    router_bias: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.per_token <= self.count:
            raise BadInput(
                f"config.json: num_experts_per_tok={self.per_token}: must lie between 1 and {self.count}, the experts"
            )


@dataclass(frozen=True, kw_only=True)
class SwiGluConfig:
    """gpt_oss's gate * sigmoid(alpha * gate) * (up + 1), with gate at most `limit` and |up| at most `limit`."""

    alpha: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and switches of a decoder; the defaults are Llama's."""

    family: str
    """The key of `families.FAMILIES`, which is Hugging Face's `model_type`."""
    vocab_size: int
    hidden_size: int
    mlp_size: int
    """Width of the feed-forward, or of each expert."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int = 2048
    kinds: tuple[LayerKind, ...] = (LayerKind(),)
    pattern: tuple[int, ...] | None = None
    """For each layer, the index of its kind; None means that all layers are of the first kind."""

    tied: bool = False
    """Whether the output projection is the embedding."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    swiglu: SwiGluConfig | None = None
    """The gate that takes the activation's place; None means the activation."""

    experts: ExpertsConfig | None = None
    """The feed-forward's experts; None means one feed-forward for all tokens."""

    norm_eps: float = 1e-6
    pre_norm: bool = True
    """Whether there are norms before attention and feed-forward."""
    post_norm: bool = False
    """Whether there are norms after attention and feed-forward, before the residual sum."""
    norm_offset: float = 0.0
    """A number that is added to every norm's weight."""
    norm_in_float32: bool = False
    """Whether norms are scaled in float32 and cast afterwards, not the other way round."""
    qk_norm: Literal["head", "width"] | None = None
    """The norm of queries and keys: each head by itself, or all heads together."""

    attention_scale: float | None = None
    """The factor on the scores; None means head_dim^-0.5."""
    attention_sinks: bool = False
    """Whether each head has a score of its own that takes part in the softmax and has no value (arXiv 2309.17453)."""
    attention_softcap: float | None = None
    """The c of c * tanh(score / c); None means no cap."""
    logit_softcap: float | None = None
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    """The factor on what attention and feed-forward add."""
    logit_scale: float = 1.0

    recomputed_past: int | None = None
    """The length past which a text that grows gets all keys and values anew, once, while it is sampled; None: never."""

    init_std: float = 0.02

    def __post_init__(self) -> None:
        for name, number in _floats(self):
            if not math.isfinite(number):
                raise BadInput(f"config.json: {name}={number}: must be a finite number")
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type is int and not (isinstance(value, int) and value >= 1):
                raise BadInput(f"config.json: {f.name}={value}: must be a whole number of at least 1")
        if self.heads % self.kv_heads:
            raise BadInput(
                f"config.json: num_attention_heads={self.heads} is no multiple of num_key_value_heads={self.kv_heads}"
            )
        for kind in self.kinds:
            if kind.rope is not None and int(self.head_dim * kind.rope.partial_rotary_factor) % 2:
                raise BadInput(f"config.json: head_dim={self.head_dim}: must be even, RoPE rotates pairs")
            if kind.rope is not None and kind.rope.rope_theta <= 0:
                raise BadInput(f"config.json: rope_theta={kind.rope.rope_theta}: must be above 0")
            if kind.rope is not None:
                self._check_divisors(kind.rope)
            if kind.window is not None and not (isinstance(kind.window, int) and kind.window >= 1):
                raise BadInput(f"config.json: sliding_window={kind.window}: must be a whole number of at least 1")
        if self.pattern is not None and len(self.pattern) != self.layers:
            raise ValueError(f"pattern={self.pattern}: must name a kind for each of {self.layers} layers")

    @property
    def context(self) -> int:
        """The longest text, in tokens, that every layer's rotary embedding is made for, rescaled ones included."""

        def reach(rope: RopeConfig) -> int:
            if rope.rope_type not in ("linear", "dynamic", "yarn") or rope.factor is None:
                return self.max_positions
            unscaled = rope.original_max_position_embeddings if rope.rope_type == "yarn" else self.max_positions
            return max(self.max_positions, int(rope.factor * (unscaled or self.max_positions)))

        return min((reach(kind.rope) for kind in self.kinds if kind.rope is not None), default=self.max_positions)

    def _check_divisors(self, rope: RopeConfig) -> None:
        pairs = int(self.head_dim * rope.partial_rotary_factor) // 2
        for name in ("short_factor", "long_factor"):
            divisors = getattr(rope, name)
            if divisors is not None and len(divisors) != pairs:
                raise BadInput(f"config.json: {name}: {len(divisors)} numbers for {pairs} rotated pairs of a head")

    def axis_sizes(self) -> dict[str, tuple[str, int]]:
        """Returns the dimensions that a mesh must divide, for `axes.check_divides`.

        Key-value heads are not among them: a mesh that does not divide these holds all of them on every device.
        """
        sizes = {
            "hidden_size": ("embed", self.hidden_size),
            "num_attention_heads": ("heads", self.heads),
            "intermediate_size": ("mlp", self.mlp_size),
            "vocab_size": ("vocab", self.vocab_size),
        }
        return sizes if self.experts is None else sizes | {"num_experts": ("experts", self.experts.count)}


def _floats(part: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers with a fraction in a configuration and its parts, each with its field's name."""
    if isinstance(part, float):
        yield name, part
    elif isinstance(part, tuple):
        for item in part:
            yield from _floats(item, name)
    elif dataclasses.is_dataclass(part):
        for f in dataclasses.fields(part):
            yield from _floats(getattr(part, f.name), f.name)
