"""The decoder of all families: one class, switched by `DecoderConfig`.

Legend: B rows, L tokens, N layers of a stack, D hidden size, H query heads, G key-value heads, K head size, F
feed-forward size, E experts, X experts a token, V vocabulary. Every weight is declared once, with shape, logical axes and initialiser; abstract tree,
shardings, loading and export are derived from that.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from o1p_jax.mesh import RULES, MeshAxes, constrain, sharding
from o1p_jax.models.attention import KEPT, Scoring, packed_attention
from o1p_jax.models.config import DecoderConfig, LayerKind, RopeConfig
from o1p_jax.models.experts import Experts, expert_mlp, route
from o1p_jax.models.rope import rope_angles, rotate, text_lengths

_normal, _ZEROS = jax.nn.initializers.normal, jax.nn.initializers.zeros
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}
_UNLIMITED = 2**30


def _weight(rngs: nnx.Rngs, init: Callable[..., Array], **axes: int) -> nnx.Param:
    """A float32 weight from logical axis -> size, in the array's order."""
    return nnx.Param(init(rngs.params(), tuple(axes.values()), jnp.float32), logical_axes=tuple(axes))


class _Norm(NamedTuple):
    """Root-mean-square norm (arXiv 1910.07467) in float32, and how it is scaled."""

    eps: float
    offset: float
    in_float32: bool

    def __call__(self, x: Float[Array, "*B D"], scale: nnx.Param | None, axes: int = 1) -> Float[Array, "*B D"]:
        """Normalises the last `axes` axes together; without a scale `x` is handed back."""
        if scale is None:
            return x
        x32 = x.astype(jnp.float32)
        over = tuple(range(-axes, 0))
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=over, keepdims=True) + self.eps)
        weight = (scale[...] + self.offset).reshape((1,) * (x.ndim - axes) + x.shape[x.ndim - axes :])
        if self.in_float32:
            return (normed * weight).astype(x.dtype)
        return normed.astype(x.dtype) * weight.astype(x.dtype)


def _project(equation: str, x: Array, weight: nnx.Param, bias: nnx.Param | None) -> Array:
    """einsum in the type of `x`, accumulated in float32; the bias is broadcast over rows and tokens."""
    out = jnp.einsum(equation, x, weight[...].astype(x.dtype), preferred_element_type=jnp.float32).astype(x.dtype)
    return out if bias is None else out + bias[...].astype(x.dtype)[None, None]


def _times(x: Array, factor: float) -> Array:
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


def _norm(cfg: DecoderConfig) -> _Norm:
    return _Norm(cfg.norm_eps, cfg.norm_offset, cfg.norm_in_float32)


class _Kinds(NamedTuple):
    """What the kinds of layers need, one entry each along the first axis, so that a scanned layer can take its own."""

    cos_nBLP: Array
    sin_nBLP: Array
    window_n: Array

    @classmethod
    def of(cls, cfg: DecoderConfig, positions_BL: Array, longest_BL: Array) -> "_Kinds":
        def angles(kind: LayerKind) -> tuple[Array, Array]:
            if kind.rope is None:
                return jnp.ones_like(plain[0]), jnp.zeros_like(plain[1])
            return rope_angles(kind.rope, cfg.head_dim, positions_BL, longest_BL)

        rotated = next((kind.rope for kind in cfg.kinds if kind.rope is not None), RopeConfig())
        plain = rope_angles(rotated, cfg.head_dim, positions_BL, longest_BL)
        cos, sin = (jnp.stack(parts) for parts in zip(*map(angles, cfg.kinds), strict=True))
        return cls(cos, sin, jnp.array([kind.window or _UNLIMITED for kind in cfg.kinds], jnp.int32))

    def at(self, kind: Array) -> tuple[tuple[Array, Array], Array]:
        """Angles and window of the kind with this index."""
        cos, sin, window = (jax.lax.dynamic_index_in_dim(a, kind, keepdims=False) for a in self)
        return (cos, sin), window


class Stack(nnx.Module):
    """`n` consecutive layers, each weight stacked along a first axis; called on one layer's slice of them."""

    def __init__(self, cfg: DecoderConfig, n: int, *, rngs: nnx.Rngs):
        self.cfg = cfg
        d, h, g, k, f = cfg.hidden_size, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp_size

        def weight(init: Callable[..., Array] = _normal(cfg.init_std), **axes: int) -> nnx.Param:  # noqa: B008
            return _weight(rngs, init, layers=n, **axes)

        def optional(wanted: bool, init: Callable[..., Array], **axes: int) -> nnx.Param | None:
            return weight(init, **axes) if wanted else None

        width = cfg.qk_norm == "width"
        norm_init = jax.nn.initializers.constant(1.0 - cfg.norm_offset)
        self.attn_norm = optional(cfg.pre_norm, norm_init, norm=d)
        self.q = weight(embed=d, heads=h, head_dim=k)
        self.k = weight(embed=d, kv_heads=g, head_dim=k)
        self.v = weight(embed=d, kv_heads=g, head_dim=k)
        self.o = weight(heads=h, head_dim=k, embed=d)
        self.q_bias = optional(cfg.qkv_bias, _ZEROS, heads=h, head_dim=k)
        self.k_bias = optional(cfg.qkv_bias, _ZEROS, kv_heads=g, head_dim=k)
        self.v_bias = optional(cfg.qkv_bias, _ZEROS, kv_heads=g, head_dim=k)
        self.o_bias = optional(cfg.o_bias, _ZEROS, norm=d)
        self.q_norm = optional(cfg.qk_norm is not None, norm_init, **({"heads": h} if width else {}), head_dim=k)
        self.k_norm = optional(cfg.qk_norm is not None, norm_init, **({"kv_heads": g} if width else {}), head_dim=k)
        self.sinks = optional(cfg.attention_sinks, _normal(cfg.init_std), heads=h)
        self.attn_post_norm = optional(cfg.post_norm, norm_init, norm=d)
        self.mlp_norm = optional(cfg.pre_norm, norm_init, norm=d)
        e = {} if cfg.experts is None else {"experts": cfg.experts.count}
        width_d = {"expert_embed" if e else "embed": d}
        self.gate = weight(**e, **width_d, mlp=f)
        self.up = weight(**e, **width_d, mlp=f)
        self.down = weight(**e, mlp=f, **width_d)
        self.gate_bias = optional(cfg.mlp_bias, _ZEROS, **e, mlp=f)
        self.up_bias = optional(cfg.mlp_bias, _ZEROS, **e, mlp=f)
        self.down_bias = optional(cfg.mlp_bias, _ZEROS, **({"router": e["experts"]} if e else {}), norm=d)
        if cfg.experts is not None:
            self.router = weight(embed=d, router=cfg.experts.count)
            self.router_bias = optional(cfg.experts.router_bias, _ZEROS, router=cfg.experts.count)
        self.mlp_post_norm = optional(cfg.post_norm, norm_init, norm=d)

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        angles: tuple[Array, Array],
        attend: Callable[[Array, Array, Array, Array | None], Array],
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
        """One layer; `attend` maps queries, keys, values and sinks to attention. Also returns its keys and values."""
        norm = _norm(self.cfg)
        qk_axes = 2 if self.cfg.qk_norm == "width" else 1
        h_BLD = norm(x_BLD, self.attn_norm)
        q_BLHK = norm(_project("BLD,DHK->BLHK", h_BLD, self.q, self.q_bias), self.q_norm, qk_axes)
        k_BLGK = norm(_project("BLD,DGK->BLGK", h_BLD, self.k, self.k_bias), self.k_norm, qk_axes)
        v_BLGK = checkpoint_name(_project("BLD,DGK->BLGK", h_BLD, self.v, self.v_bias), KEPT)
        q_BLHK = checkpoint_name(rotate(q_BLHK, angles), KEPT)
        k_BLGK = checkpoint_name(rotate(k_BLGK, angles), KEPT)
        context_BLHK = attend(q_BLHK, k_BLGK, v_BLGK, None if self.sinks is None else self.sinks[...])
        h_BLD = norm(_project("BLHK,HKD->BLD", context_BLHK, self.o, self.o_bias), self.attn_post_norm)
        x_BLD = constrain(x_BLD + _times(h_BLD, self.cfg.residual_scale), "batch", "length", "activation")

        mlp = self._mlp if self.cfg.experts is None else self._experts
        h_BLD = norm(mlp(norm(x_BLD, self.mlp_norm)), self.mlp_post_norm)
        x_BLD = constrain(x_BLD + _times(h_BLD, self.cfg.residual_scale), "batch", "length", "activation")
        return x_BLD, (k_BLGK, v_BLGK)

    def _mlp(self, x_BLD: Array) -> Array:
        gate_BLF = checkpoint_name(_project("BLD,DF->BLF", x_BLD, self.gate, self.gate_bias), KEPT)
        up_BLF = checkpoint_name(_project("BLD,DF->BLF", x_BLD, self.up, self.up_bias), KEPT)
        return _project("BLF,FD->BLD", self._gated(gate_BLF, up_BLF), self.down, self.down_bias)

    def _experts(self, x_BLD: Array) -> Array:
        assert self.cfg.experts is not None

        def cast(weight: nnx.Param | None) -> Array | None:
            return None if weight is None else weight[...].astype(x_BLD.dtype)

        logits_BLE = jnp.einsum("BLD,DE->BLE", x_BLD, cast(self.router), preferred_element_type=jnp.float32)
        if self.router_bias is not None:
            logits_BLE += self.router_bias[...][None, None]
        weights_BLX, chosen_BLX = route(logits_BLE, self.cfg.experts.per_token, self.cfg.experts.normalize)
        experts = Experts(*map(cast, (self.gate, self.up, self.down, self.gate_bias, self.up_bias)))
        out_BLD = expert_mlp(x_BLD, weights_BLX, chosen_BLX, experts, self._gated)
        if self.down_bias is None:
            return out_BLD
        each_E = jnp.arange(self.cfg.experts.count, dtype=chosen_BLX.dtype)[None, None, None]
        weights_BLE = jnp.sum(jnp.where(chosen_BLX[..., None] == each_E, weights_BLX[..., None], 0.0), axis=2)
        return out_BLD + jnp.einsum("BLE,ED->BLD", weights_BLE, self.down_bias[...]).astype(x_BLD.dtype)

    def _gated(self, gate: Array, up: Array) -> Array:
        swiglu = self.cfg.swiglu
        if swiglu is None:
            return _ACTIVATIONS[self.cfg.activation](gate) * up
        gate = jnp.minimum(gate, jnp.asarray(swiglu.limit, gate.dtype))
        up = jnp.clip(up, -swiglu.limit, swiglu.limit)
        return gate * jax.nn.sigmoid(_times(gate, swiglu.alpha)) * (up + jnp.ones((), up.dtype))


class Decoder(nnx.Module):
    """A causal language model up to its final norm; `head_DV` is the output projection.

    `splits` are the lengths of consecutive stacks of layers (such as 16 frozen, 48 trainable), one stack if left out.
    """

    def __init__(self, cfg: DecoderConfig, *, splits: tuple[int, ...] | None = None, rngs: nnx.Rngs):
        splits = splits or (cfg.layers,)
        if sum(splits) != cfg.layers or min(splits) < 1:
            raise ValueError(f"splits={splits}: must be positive and add up to the model's {cfg.layers} layers")
        self.cfg = cfg
        self.embed = _weight(rngs, _normal(cfg.init_std), vocab=cfg.vocab_size, embed=cfg.hidden_size)
        self.stacks = nnx.List([Stack(cfg, n, rngs=rngs) for n in splits])
        self.norm = _weight(rngs, jax.nn.initializers.constant(1.0 - cfg.norm_offset), norm=cfg.hidden_size)
        self.head = (
            None if cfg.tied else _weight(rngs, _normal(cfg.init_std), embed=cfg.hidden_size, vocab=cfg.vocab_size)
        )

    def __call__(
        self,
        ids_BL: Int[Array, "B L"],
        positions_BL: Int[Array, "B L"],
        segments_BL: Int[Array, "B L"],
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ) -> Float[Array, "B L D"]:
        """Hidden states after the final norm, in `dtype`.

        Attention is causal within a segment of `segments_BL`; 0 is padding, whose hidden states mean nothing.
        `remat` keeps only the outputs of matrix products (what is marked KEPT) for the backward pass.
        """
        kinds = _Kinds.of(self.cfg, positions_BL, text_lengths(positions_BL, segments_BL))
        x_BLD = self._embed(ids_BL, dtype)
        for stack, pattern in zip(self.stacks, self._patterns(), strict=True):
            graphdef, weights = nnx.split(stack)

            def layer(x_BLD, inputs, graphdef=graphdef):
                weights, kind = inputs
                angles, window = kinds.at(kind)
                x_BLD, _ = nnx.merge(graphdef, weights)(
                    x_BLD,
                    angles,
                    lambda q, k, v, sinks: packed_attention(q, k, v, segments_BL, window, self.scoring, sinks),
                )
                return x_BLD, None

            if remat:
                layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
            x_BLD, _ = jax.lax.scan(layer, x_BLD, (weights, pattern))
        return _norm(self.cfg)(x_BLD, self.norm)

    def forward_cached(
        self,
        ids_BL: Int[Array, "B L"],
        positions_BL: Int[Array, "B L"],
        longest_BL: Int[Array, "B L"],
        attend: Callable[[Array, Array, Array, Array | None, Array, Any], Array],
        per_layer: Any,
        *,
        dtype: DTypeLike = jnp.float32,
    ) -> tuple[Float[Array, "B L D"], tuple[Float[Array, "N B L G K"], Float[Array, "N B L G K"]]]:
        """Hidden states after the final norm, and all layers' new keys and values, which the caller keeps as it likes.

        `attend(q_BLHK, k_BLGK, v_BLGK, sinks_H, window, slice)` is the attention: of each token to the last `window`,
        itself included, with `scoring`; `slice` is the layer's part of `per_layer`, a tree of arrays whose first axis runs
        over all layers. `longest_BL` is the length of the text that each token belongs to.
        """
        kinds = _Kinds.of(self.cfg, positions_BL, longest_BL)
        x_BLD = self._embed(ids_BL, dtype)
        new, first = [], 0
        for stack, pattern in zip(self.stacks, self._patterns(), strict=True):
            graphdef, weights = nnx.split(stack)
            last = first + len(pattern)

            def layer(x_BLD, inputs, graphdef=graphdef):
                weights, kind, of_layer = inputs
                angles, window = kinds.at(kind)
                return nnx.merge(graphdef, weights)(
                    x_BLD, angles, lambda q, k, v, sinks: attend(q, k, v, sinks, window, of_layer)
                )

            of_stack = jax.tree.map(lambda a, first=first, last=last: a[first:last], per_layer)
            x_BLD, keys_values = jax.lax.scan(layer, x_BLD, (weights, pattern, of_stack))
            new.append(keys_values)
            first = last
        k_NBLGK, v_NBLGK = (jnp.concatenate(parts) for parts in zip(*new, strict=True))
        return _norm(self.cfg)(x_BLD, self.norm), (k_NBLGK, v_NBLGK)

    @property
    def scoring(self) -> Scoring:
        """How products of queries and keys become scores."""
        scale = self.cfg.attention_scale
        return Scoring(self.cfg.head_dim**-0.5 if scale is None else scale, self.cfg.attention_softcap)

    def head_DV(self) -> Float[Array, "D V"]:
        """The output projection, float32; the embedding's transpose in a tied model. Its product is no logit yet."""
        return self.embed[...].T if self.head is None else self.head[...]

    def logits(self, product: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Logits from the product of hidden states and `head_DV`, element by element."""
        product = _times(product, self.cfg.logit_scale)
        cap = self.cfg.logit_softcap
        return product if cap is None else cap * jnp.tanh(product / cap)

    def _patterns(self) -> list[Array]:
        """For each stack, its layers' kinds."""
        pattern = jnp.array(self.cfg.pattern or (0,) * self.cfg.layers, jnp.int32)
        lengths = [stack.q.shape[0] for stack in self.stacks]
        return jnp.split(pattern, np.cumsum(lengths)[:-1].tolist())

    def _embed(self, ids_BL: Array, dtype: DTypeLike) -> Array:
        # Cast after the look-up, so that the gradients of a frequent token add up in float32.
        x_BLD = _times(self.embed[...][ids_BL].astype(dtype), self.cfg.embed_scale)
        return constrain(x_BLD, "batch", "length", "activation")


def abstract_model(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and weights as `ShapeDtypeStruct`; `nnx.merge(graphdef, weights)` is a `Decoder`."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(cfg, splits=splits, rngs=nnx.Rngs(0))))


def abstract_params(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.State:
    """The weights as `jax.ShapeDtypeStruct`."""
    return abstract_model(cfg, splits)[1]


def graph(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.GraphDef:
    """The model without its weights."""
    return abstract_model(cfg, splits)[0]


def rules_for(cfg: DecoderConfig, mesh: Mesh, rules: Mapping[str, MeshAxes] = RULES) -> Mapping[str, MeshAxes]:
    """`rules`, with the key-value heads replicated where the tensor axis does not divide them."""
    return {**rules, "kv_heads": None} if cfg.kv_heads % mesh.shape["tensor"] else rules


def param_shardings(
    cfg: DecoderConfig, mesh: Mesh, splits: tuple[int, ...] | None = None, rules: Mapping[str, MeshAxes] = RULES
) -> nnx.State:
    """A tree like the weights', of `NamedSharding`."""
    rules = rules_for(cfg, mesh, rules)

    def place(weight: Any) -> Any:
        return weight.replace(sharding(mesh, weight.get_metadata("logical_axes"), rules))

    return jax.tree.map(place, abstract_params(cfg, splits), is_leaf=lambda x: isinstance(x, nnx.Variable))


def init_params(cfg: DecoderConfig, key: Array, mesh: Mesh, splits: tuple[int, ...] | None = None) -> nnx.State:
    """Random float32 weights, each made in the place where it lies."""

    def init(key: Array) -> nnx.State:
        return nnx.state(Decoder(cfg, splits=splits, rngs=nnx.Rngs(key)))

    return jax.jit(init, out_shardings=param_shardings(cfg, mesh, splits))(key)
