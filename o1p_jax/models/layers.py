"""A decoder's layers: norms, attention's projections, and the feed-forward, one for all tokens or one of experts.

Legend: B rows, L tokens, D hidden size, H query heads, G key-value heads, K head size, F feed-forward size, E experts,
X experts a token. Every weight is declared once, with its shape, logical axes and initialiser.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from o1p_jax.devices.axes import constrain
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.experts import Experts, expert_mlp, route
from o1p_jax.models.products import product
from o1p_jax.models.remat import keep
from o1p_jax.models.rope import rotate

_normal, _ZEROS = jax.nn.initializers.normal, jax.nn.initializers.zeros
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class Stack(nnx.Module):
    """`n` consecutive layers, whose weights are stacked along a first axis.

    The stack is called on one layer's slice of its weights, inside a scan over layers.
    """

    def __init__(self, cfg: DecoderConfig, n: int, *, rngs: nnx.Rngs):
        self.cfg = cfg
        d, h, g, k, f = cfg.hidden_size, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp_size

        def weight(**axes: int) -> nnx.Param:
            return new_weight(rngs, _normal(cfg.init_std), layers=n, **axes)

        def optional(wanted: bool, init: Callable[..., Array], **axes: int) -> nnx.Param | None:
            return new_weight(rngs, init, layers=n, **axes) if wanted else None

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
        """Runs one layer; returns its output, and its keys and values.

        `attend` maps queries, keys, values and sinks to the attention's output.
        """
        norm = norm_of(self.cfg)
        qk_axes = 2 if self.cfg.qk_norm == "width" else 1
        h_BLD = norm(x_BLD, self.attn_norm)
        q_BLHK = norm(_project("BLD,DHK->BLHK", h_BLD, self.q, self.q_bias), self.q_norm, qk_axes)
        k_BLGK = norm(_project("BLD,DGK->BLGK", h_BLD, self.k, self.k_bias), self.k_norm, qk_axes)
        v_BLGK = keep(_project("BLD,DGK->BLGK", h_BLD, self.v, self.v_bias))
        q_BLHK = keep(rotate(q_BLHK, angles))
        k_BLGK = keep(rotate(k_BLGK, angles))
        context_BLHK = attend(q_BLHK, k_BLGK, v_BLGK, None if self.sinks is None else self.sinks[...])
        h_BLD = norm(_project("BLHK,HKD->BLD", context_BLHK, self.o, self.o_bias), self.attn_post_norm)
        x_BLD = constrain(x_BLD + times(h_BLD, self.cfg.residual_scale), "batch", "length", "activation")

        mlp = self._mlp if self.cfg.experts is None else self._experts
        h_BLD = norm(mlp(norm(x_BLD, self.mlp_norm)), self.mlp_post_norm)
        x_BLD = constrain(x_BLD + times(h_BLD, self.cfg.residual_scale), "batch", "length", "activation")
        return x_BLD, (k_BLGK, v_BLGK)

    def _mlp(self, x_BLD: Array) -> Array:
        """The feed-forward of all tokens."""
        gate_BLF = keep(_project("BLD,DF->BLF", x_BLD, self.gate, self.gate_bias))
        up_BLF = keep(_project("BLD,DF->BLF", x_BLD, self.up, self.up_bias))
        return _project("BLF,FD->BLD", self._gated(gate_BLF, up_BLF), self.down, self.down_bias)

    def _experts(self, x_BLD: Array) -> Array:
        """The feed-forward of experts."""
        assert self.cfg.experts is not None

        def cast(weight: nnx.Param | None) -> Array | None:
            return None if weight is None else weight[...].astype(x_BLD.dtype)

        logits_BLE = product("BLD,DE->BLE", x_BLD, self.router[...])
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
        """The activation of a feed-forward, from the products with the weights `gate` and `up`."""
        swiglu = self.cfg.swiglu
        if swiglu is None:
            return _ACTIVATIONS[self.cfg.activation](gate) * up
        gate = jnp.minimum(gate, jnp.asarray(swiglu.limit, gate.dtype))
        up = jnp.clip(up, -swiglu.limit, swiglu.limit)
        return gate * jax.nn.sigmoid(times(gate, swiglu.alpha)) * (up + jnp.ones((), up.dtype))


class Norm(NamedTuple):
    """Root-mean-square norm (arXiv 1910.07467) in float32, and how its result is scaled."""

    eps: float
    offset: float
    in_float32: bool

    def __call__(self, x: Float[Array, "*B D"], scale: nnx.Param | None, axes: int = 1) -> Float[Array, "*B D"]:
        """Normalises the last `axes` axes together; without a scale `x` is returned as it is."""
        if scale is None:
            return x
        x32 = x.astype(jnp.float32)
        over = tuple(range(-axes, 0))
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=over, keepdims=True) + self.eps)
        # Weights may be bfloat16, whose numbers around 1 lie 2^-7 apart.
        weight = scale[...].astype(jnp.float32) + self.offset
        weight = weight.reshape((1,) * (x.ndim - axes) + x.shape[x.ndim - axes :])
        if self.in_float32:
            return (normed * weight).astype(x.dtype)
        return normed.astype(x.dtype) * weight.astype(x.dtype)


def norm_of(cfg: DecoderConfig) -> Norm:
    """Returns the norm that all layers of `cfg` use."""
    return Norm(cfg.norm_eps, cfg.norm_offset, cfg.norm_in_float32)


def new_weight(rngs: nnx.Rngs, init: Callable[..., Array], **axes: int) -> nnx.Param:
    """Makes a float32 weight; `axes` maps its logical axes to their sizes, in the array's order."""
    return nnx.Param(init(rngs.params(), tuple(axes.values()), jnp.float32), logical_axes=tuple(axes))


def times(x: Array, factor: float) -> Array:
    """Multiplies `x` by a number in the type of `x`."""
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


def _project(equation: str, x: Array, weight: nnx.Param, bias: nnx.Param | None) -> Array:
    """A product in the type of `x`, accumulated in float32; the bias is broadcast over rows and tokens."""
    out = product(equation, x, weight[...]).astype(x.dtype)
    return out if bias is None else out + bias[...].astype(x.dtype)[None, None]
