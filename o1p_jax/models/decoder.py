"""The decoder of the dense families (Llama, Qwen2, Qwen3): one class, switched by `DecoderConfig`.

Legend: B rows, L tokens, N layers of a stack, D hidden size, H query heads, G key-value heads, K head size, F
feed-forward size, V vocabulary. Every weight is declared once, with shape, logical axes and initialiser; abstract tree,
shardings, loading and export are derived from that.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from o1p_jax.mesh import RULES, constrain, sharding
from o1p_jax.models.attention import KEPT, packed_attention
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.rope import rope_angles, rotate

_normal, _ONES, _ZEROS = jax.nn.initializers.normal, jax.nn.initializers.ones, jax.nn.initializers.zeros


def _weight(rngs: nnx.Rngs, init: Callable[..., Array], **axes: int) -> nnx.Param:
    """A float32 weight from logical axis -> size, in the array's order."""
    return nnx.Param(init(rngs.params(), tuple(axes.values()), jnp.float32), logical_axes=tuple(axes))


def _rms_norm(x: Float[Array, "*B D"], scale_D: Float[Array, "D"], eps: float) -> Float[Array, "*B D"]:
    """Root-mean-square norm (arXiv 1910.07467) in float32; cast before the scale, as Hugging Face does."""
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return normed.astype(x.dtype) * scale_D.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _project(equation: str, x: Array, weight: nnx.Param, bias: nnx.Param | None) -> Array:
    """einsum in the type of `x`, accumulated in float32; the bias is broadcast over rows and tokens."""
    out = jnp.einsum(equation, x, weight[...].astype(x.dtype), preferred_element_type=jnp.float32).astype(x.dtype)
    return out if bias is None else out + bias[...].astype(x.dtype)[None, None]


class Stack(nnx.Module):
    """`n` consecutive layers, each weight stacked along a first axis; called on one layer's slice of them."""

    def __init__(self, cfg: DecoderConfig, n: int, *, rngs: nnx.Rngs):
        self.cfg = cfg
        d, h, g, k, f = cfg.hidden_size, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp_size

        def weight(init: Callable[..., Array] = _normal(cfg.init_std), **axes: int) -> nnx.Param:  # noqa: B008
            return _weight(rngs, init, layers=n, **axes)

        def optional(wanted: bool, init: Callable[..., Array], **axes: int) -> nnx.Param | None:
            return weight(init, **axes) if wanted else None

        self.attn_norm = weight(_ONES, norm=d)
        self.q = weight(embed=d, heads=h, head_dim=k)
        self.k = weight(embed=d, kv_heads=g, head_dim=k)
        self.v = weight(embed=d, kv_heads=g, head_dim=k)
        self.o = weight(heads=h, head_dim=k, embed=d)
        self.q_bias = optional(cfg.qkv_bias, _ZEROS, heads=h, head_dim=k)
        self.k_bias = optional(cfg.qkv_bias, _ZEROS, kv_heads=g, head_dim=k)
        self.v_bias = optional(cfg.qkv_bias, _ZEROS, kv_heads=g, head_dim=k)
        self.o_bias = optional(cfg.o_bias, _ZEROS, norm=d)
        self.q_norm = optional(cfg.qk_norm, _ONES, head_dim=k)
        self.k_norm = optional(cfg.qk_norm, _ONES, head_dim=k)
        self.mlp_norm = weight(_ONES, norm=d)
        self.gate = weight(embed=d, mlp=f)
        self.up = weight(embed=d, mlp=f)
        self.down = weight(mlp=f, embed=d)
        self.gate_bias = optional(cfg.mlp_bias, _ZEROS, mlp=f)
        self.up_bias = optional(cfg.mlp_bias, _ZEROS, mlp=f)
        self.down_bias = optional(cfg.mlp_bias, _ZEROS, norm=d)

    def __call__(
        self, x_BLD: Float[Array, "B L D"], angles: tuple[Array, Array], attend: Callable[[Array, Array, Array], Array]
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
        """One layer; `attend` maps queries, keys, values to their attention. Also returns its keys and values."""
        eps = self.cfg.norm_eps
        h_BLD = _rms_norm(x_BLD, self.attn_norm[...], eps)
        q_BLHK = _project("BLD,DHK->BLHK", h_BLD, self.q, self.q_bias)
        k_BLGK = _project("BLD,DGK->BLGK", h_BLD, self.k, self.k_bias)
        v_BLGK = checkpoint_name(_project("BLD,DGK->BLGK", h_BLD, self.v, self.v_bias), KEPT)
        if self.q_norm is not None and self.k_norm is not None:
            q_BLHK, k_BLGK = _rms_norm(q_BLHK, self.q_norm[...], eps), _rms_norm(k_BLGK, self.k_norm[...], eps)
        q_BLHK = checkpoint_name(rotate(q_BLHK, angles), KEPT)
        k_BLGK = checkpoint_name(rotate(k_BLGK, angles), KEPT)
        context_BLHK = attend(q_BLHK, k_BLGK, v_BLGK)
        x_BLD = x_BLD + _project("BLHK,HKD->BLD", context_BLHK, self.o, self.o_bias)
        x_BLD = constrain(x_BLD, "batch", "length", "activation")

        h_BLD = _rms_norm(x_BLD, self.mlp_norm[...], eps)
        gate_BLF = checkpoint_name(_project("BLD,DF->BLF", h_BLD, self.gate, self.gate_bias), KEPT)
        up_BLF = checkpoint_name(_project("BLD,DF->BLF", h_BLD, self.up, self.up_bias), KEPT)
        x_BLD = x_BLD + _project("BLF,FD->BLD", jax.nn.silu(gate_BLF) * up_BLF, self.down, self.down_bias)
        return constrain(x_BLD, "batch", "length", "activation"), (k_BLGK, v_BLGK)


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
        self.norm = _weight(rngs, _ONES, norm=cfg.hidden_size)
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
        angles = rope_angles(self.cfg.rope, self.cfg.head_dim, positions_BL)
        x_BLD = self._embed(ids_BL, dtype)
        for stack in self.stacks:
            graphdef, weights = nnx.split(stack)

            def layer(x_BLD, weights, graphdef=graphdef):
                x_BLD, _ = nnx.merge(graphdef, weights)(
                    x_BLD, angles, lambda q, k, v: packed_attention(q, k, v, segments_BL)
                )
                return x_BLD, None

            if remat:
                layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
            x_BLD, _ = jax.lax.scan(layer, x_BLD, weights)
        return _rms_norm(x_BLD, self.norm[...], self.cfg.norm_eps)

    def forward_cached(
        self,
        ids_BL: Int[Array, "B L"],
        positions_BL: Int[Array, "B L"],
        attend: Callable[[Array, Array, Array, Any], Array],
        per_layer: Any,
        *,
        dtype: DTypeLike = jnp.float32,
    ) -> tuple[Float[Array, "B L D"], tuple[Float[Array, "N B L G K"], Float[Array, "N B L G K"]]]:
        """Hidden states after the final norm, and all layers' new keys and values, which the caller keeps as it likes.

        `attend(q_BLHK, k_BLGK, v_BLGK, slice)` is the attention; `slice` is the layer's part of `per_layer`, a tree of
        arrays whose first axis runs over all layers.
        """
        angles = rope_angles(self.cfg.rope, self.cfg.head_dim, positions_BL)
        x_BLD = self._embed(ids_BL, dtype)
        new, first = [], 0
        for stack in self.stacks:
            graphdef, weights = nnx.split(stack)
            last = first + stack.q.shape[0]

            def layer(x_BLD, inputs, graphdef=graphdef):
                weights, of_layer = inputs
                return nnx.merge(graphdef, weights)(x_BLD, angles, lambda q, k, v: attend(q, k, v, of_layer))

            of_stack = jax.tree.map(lambda a, first=first, last=last: a[first:last], per_layer)
            x_BLD, keys_values = jax.lax.scan(layer, x_BLD, (weights, of_stack))
            new.append(keys_values)
            first = last
        k_NBLGK, v_NBLGK = (jnp.concatenate(parts) for parts in zip(*new, strict=True))
        return _rms_norm(x_BLD, self.norm[...], self.cfg.norm_eps), (k_NBLGK, v_NBLGK)

    def head_DV(self) -> Float[Array, "D V"]:
        """The output projection, float32; the embedding's transpose in a tied model."""
        return self.embed[...].T if self.head is None else self.head[...]

    def _embed(self, ids_BL: Array, dtype: DTypeLike) -> Array:
        # Cast after the look-up, so that the gradients of a frequent token add up in float32.
        return constrain(self.embed[...][ids_BL].astype(dtype), "batch", "length", "activation")


def abstract_model(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and weights as `ShapeDtypeStruct`; `nnx.merge(graphdef, weights)` is a `Decoder`."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(cfg, splits=splits, rngs=nnx.Rngs(0))))


def abstract_params(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.State:
    """The weights as `jax.ShapeDtypeStruct`."""
    return abstract_model(cfg, splits)[1]


def graph(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.GraphDef:
    """The model without its weights."""
    return abstract_model(cfg, splits)[0]


def param_shardings(
    cfg: DecoderConfig, mesh: Mesh, splits: tuple[int, ...] | None = None, rules: Mapping[str, str | None] = RULES
) -> nnx.State:
    """A tree like the weights', of `NamedSharding`."""

    def place(weight: Any) -> Any:
        return weight.replace(sharding(mesh, weight.get_metadata("logical_axes"), rules))

    return jax.tree.map(place, abstract_params(cfg, splits), is_leaf=lambda x: isinstance(x, nnx.Variable))


def init_params(cfg: DecoderConfig, key: Array, mesh: Mesh, splits: tuple[int, ...] | None = None) -> nnx.State:
    """Random float32 weights, each made in the place where it lies."""

    def init(key: Array) -> nnx.State:
        return nnx.state(Decoder(cfg, splits=splits, rngs=nnx.Rngs(key)))

    return jax.jit(init, out_shardings=param_shardings(cfg, mesh, splits))(key)
