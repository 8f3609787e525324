"""The decoder of all families: one class, switched by `DecoderConfig`.

The tree of weights as shapes, its shardings, loading and export are all derived from the weights' declarations.

Legend: B rows, L tokens, N layers of a stack, D hidden size, H query heads, G key-value heads, K head size, V
vocabulary.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import RULES, MeshAxes, constrain, sharding
from o1p_jax.models.attention.packed import packed_attention
from o1p_jax.models.attention.scoring import Scoring
from o1p_jax.models.config import DecoderConfig, LayerKind, RopeConfig
from o1p_jax.models.layers import Stack, new_weight, norm_of, times
from o1p_jax.models.remat import Remat, rematerialized
from o1p_jax.models.rope import rope_angles, text_lengths


class Decoder(nnx.Module):
    """A causal language model up to its final norm; `head_DV` is the output projection.

    `splits` are the lengths of consecutive stacks of layers (such as 16 frozen, 48 trainable), one stack if left out.
    """

    def __init__(self, cfg: DecoderConfig, *, splits: tuple[int, ...] | None = None, rngs: nnx.Rngs):
        splits = splits or (cfg.layers,)
        if sum(splits) != cfg.layers or min(splits) < 1:
            raise ValueError(f"splits={splits}: must be positive and add up to the model's {cfg.layers} layers")
        self.cfg = cfg
        normal = jax.nn.initializers.normal(cfg.init_std)
        self.embed = new_weight(rngs, normal, vocab=cfg.vocab_size, embed=cfg.hidden_size)
        self.stacks = nnx.List([Stack(cfg, n, rngs=rngs) for n in splits])
        self.norm = new_weight(rngs, jax.nn.initializers.constant(1.0 - cfg.norm_offset), norm=cfg.hidden_size)
        self.head = None if cfg.tied else new_weight(rngs, normal, embed=cfg.hidden_size, vocab=cfg.vocab_size)

    def __call__(
        self,
        ids_BL: Int[Array, "B L"],
        positions_BL: Int[Array, "B L"],
        segments_BL: Int[Array, "B L"],
        *,
        dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        most_segments: int | None = None,
    ) -> Float[Array, "B L D"]:
        """Returns the hidden states after the final norm, in `dtype`.

        Attention is causal within a segment of `segments_BL`; segment 0 is padding, whose hidden states mean nothing.
        `remat` says what is kept for the backward pass, see `rematerialized`; `most_segments` is the most segments a
        row, see `packed_attention`.
        """
        angles = _Angles.of(self.cfg, positions_BL, text_lengths(positions_BL, segments_BL))
        x_BLD = self._embed(ids_BL, dtype)
        for stack, pattern in zip(self.stacks, self._patterns(), strict=True):
            graphdef, weights = nnx.split(stack)

            def layer(x_BLD, inputs, graphdef=graphdef):
                weights, kind = inputs
                x_BLD, _ = nnx.merge(graphdef, weights)(
                    x_BLD,
                    angles.at(kind),
                    lambda q, k, v, sinks: packed_attention(
                        q, k, v, segments_BL, self.windows, kind, self.scoring, sinks, most_segments
                    ),
                )
                return x_BLD, None

            x_BLD, _ = jax.lax.scan(rematerialized(layer, remat), x_BLD, (weights, pattern))
        return norm_of(self.cfg)(x_BLD, self.norm)

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
        """Returns the hidden states after the final norm, and all layers' new keys and values, which the caller keeps.

        `attend(q_BLHK, k_BLGK, v_BLGK, sinks_H, kind, slice)` is the attention: of each token to the last
        `windows[kind]` tokens, itself included (None is all), with `scoring`. `slice` is the layer's part of
        `per_layer`, a tree of arrays whose first axis runs over all layers. `longest_BL` is the length of the text that
        each token belongs to.
        """
        angles = _Angles.of(self.cfg, positions_BL, longest_BL)
        x_BLD = self._embed(ids_BL, dtype)
        new, first = [], 0
        for stack, pattern in zip(self.stacks, self._patterns(), strict=True):
            graphdef, weights = nnx.split(stack)
            last = first + len(pattern)

            def layer(x_BLD, inputs, graphdef=graphdef):
                weights, kind, of_layer = inputs
                return nnx.merge(graphdef, weights)(
                    x_BLD, angles.at(kind), lambda q, k, v, sinks: attend(q, k, v, sinks, kind, of_layer)
                )

            of_stack = jax.tree.map(lambda a, first=first, last=last: a[first:last], per_layer)
            x_BLD, keys_values = jax.lax.scan(layer, x_BLD, (weights, pattern, of_stack))
            new.append(keys_values)
            first = last
        k_NBLGK, v_NBLGK = (jnp.concatenate(parts) for parts in zip(*new, strict=True))
        return norm_of(self.cfg)(x_BLD, self.norm), (k_NBLGK, v_NBLGK)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How many tokens a token sees in each kind of layers, itself included; None means all before it."""
        return tuple(kind.window for kind in self.cfg.kinds)

    @property
    def scoring(self) -> Scoring:
        """How products of queries and keys become scores."""
        scale = self.cfg.attention_scale
        return Scoring(self.cfg.head_dim**-0.5 if scale is None else scale, self.cfg.attention_softcap)

    def head_DV(self) -> Float[Array, "D V"]:
        """Returns the output projection, float32; in a tied model the embedding's transpose.

        A product with the projection is no logit yet, see `logits`.
        """
        return self.embed[...].T if self.head is None else self.head[...]

    def logits(self, product: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Returns the logits from the product of hidden states and `head_DV`, element by element."""
        product = times(product, self.cfg.logit_scale)
        cap = self.cfg.logit_softcap
        return product if cap is None else cap * jnp.tanh(product / cap)

    def _patterns(self) -> list[Array]:
        """For each stack, the kinds of its layers."""
        pattern = jnp.array(self.cfg.pattern or (0,) * self.cfg.layers, jnp.int32)
        lengths = [stack.q.shape[0] for stack in self.stacks]
        return jnp.split(pattern, np.cumsum(lengths)[:-1].tolist())

    def _embed(self, ids_BL: Array, dtype: DTypeLike) -> Array:
        """The tokens' embeddings, in `dtype`."""
        # Cast after the look-up, so that the gradients of a frequent token add up in float32.
        x_BLD = times(self.embed[...][ids_BL].astype(dtype), self.cfg.embed_scale)
        return constrain(x_BLD, "batch", "length", "activation")


def abstract_model(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns the graph definition and the weights as `ShapeDtypeStruct`; `nnx.merge` of both is a `Decoder`."""
    leaves, structure = _flat_abstract_model(cfg, splits)
    return jax.tree.unflatten(structure, leaves)


@functools.lru_cache(maxsize=64)
def _flat_abstract_model(cfg: DecoderConfig, splits: tuple[int, ...] | None) -> tuple[list, jax.tree_util.PyTreeDef]:
    """The leaves and the structure of `abstract_model`: a job asks a dozen times, and may change what it was given."""
    return jax.tree.flatten(nnx.split(nnx.eval_shape(lambda: Decoder(cfg, splits=splits, rngs=nnx.Rngs(0)))))


def abstract_params(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.State:
    """Returns the tree of weights as `ShapeDtypeStruct`."""
    return abstract_model(cfg, splits)[1]


def graph(cfg: DecoderConfig, splits: tuple[int, ...] | None = None) -> nnx.GraphDef:
    """Returns the graph definition: the model without its weights."""
    return abstract_model(cfg, splits)[0]


def param_shardings(
    cfg: DecoderConfig, mesh: Mesh, splits: tuple[int, ...] | None = None, rules: Mapping[str, MeshAxes] = RULES
) -> nnx.State:
    """Returns a tree like that of the weights, of `NamedSharding`."""
    rules = rules_for(cfg, mesh, rules)

    def place(weight: Any) -> Any:
        return weight.replace(sharding(mesh, weight.get_metadata("logical_axes"), rules))

    return jax.tree.map(place, abstract_params(cfg, splits), is_leaf=lambda x: isinstance(x, nnx.Variable))


def rules_for(cfg: DecoderConfig, mesh: Mesh, rules: Mapping[str, MeshAxes] = RULES) -> Mapping[str, MeshAxes]:
    """Returns `rules`, with the key-value heads replicated where the mesh axis "tensor" does not divide them."""
    return {**rules, "kv_heads": None} if cfg.kv_heads % mesh.shape["tensor"] else rules


def init_params(cfg: DecoderConfig, key: Array, mesh: Mesh, splits: tuple[int, ...] | None = None) -> nnx.State:
    """Makes random float32 weights, each on the devices where it lies."""

    def init(key: Array) -> nnx.State:
        return nnx.state(Decoder(cfg, splits=splits, rngs=nnx.Rngs(key)))

    return jax.jit(init, out_shardings=param_shardings(cfg, mesh, splits))(key)


class _Angles(NamedTuple):
    """The rotary embeddings' cosines and sines of each kind of layers, along the first axis n."""

    cos_nBLP: Array
    sin_nBLP: Array

    @classmethod
    def of(cls, cfg: DecoderConfig, positions_BL: Array, longest_BL: Array) -> "_Angles":
        """The angles of the tokens at these positions."""

        def angles(kind: LayerKind) -> tuple[Array, Array]:
            if kind.rope is None:
                return jnp.ones_like(plain[0]), jnp.zeros_like(plain[1])
            return rope_angles(kind.rope, cfg.head_dim, positions_BL, longest_BL)

        rotated = next((kind.rope for kind in cfg.kinds if kind.rope is not None), RopeConfig())
        plain = rope_angles(rotated, cfg.head_dim, positions_BL, longest_BL)
        cos, sin = (jnp.stack(parts) for parts in zip(*map(angles, cfg.kinds), strict=True))
        return cls(cos, sin)

    def at(self, kind: Array) -> tuple[Array, Array]:
        """The cosines and sines of the kind of layers with this index, so that a scanned layer can take its own."""
        cos, sin = (jax.lax.dynamic_index_in_dim(a, kind, keepdims=False) for a in self)
        return cos, sin
