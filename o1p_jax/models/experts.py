"""A feed-forward of experts: every token goes to the few experts that its router prefers, and no token is dropped.

Tokens are sorted by expert, so that each expert's product is one stretch of rows (MegaBlocks, arXiv 2211.15841). A
device holds some of the experts (mesh axis "expert"), gathers the tokens of the devices that hold the others, and hands
back what its experts add to them.

Legend: B rows, L tokens a row; T tokens, X experts a token, P = T * X pairs of token and expert; E experts, D hidden
size, F feed-forward size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from o1p_jax.devices.axes import free_axes, partition
from o1p_jax.models.grouped_product import grouped_product
from o1p_jax.models.products import product
from o1p_jax.models.remat import keep

_LEAST_ROWS, MOST_ROWS = 8, 512
"""The fewest and the most rows of a tile of `grouped_product`."""


class Experts(NamedTuple):
    """The weights of all experts or of a device's experts; or, in the same tree, where the weights lie.

    The biases may be None.
    """

    gate_EDF: Any
    up_EDF: Any
    down_EFD: Any
    gate_bias_EF: Any
    up_bias_EF: Any


def route(
    logits_BLE: Float[Array, "B L E"], experts: int, normalize: bool
) -> tuple[Float[Array, "B L X"], Int[Array, "B L X"]]:
    """Returns the float32 weight and the index of the `experts` likeliest experts of each token.

    The weights are the router's probabilities, divided by their sum if `normalize`.
    """
    chosen_BLX, index_BLX = jax.lax.top_k(logits_BLE, experts)
    total_BL1 = jax.nn.logsumexp(chosen_BLX if normalize else logits_BLE, axis=-1, keepdims=True)
    return jnp.exp(chosen_BLX - total_BL1), index_BLX


def expert_mlp(
    x_BLD: Float[Array, "B L D"],
    weights_BLX: Float[Array, "B L X"],
    chosen_BLX: Int[Array, "B L X"],
    experts: Experts,
    gated: Callable[[Array, Array], Array],
) -> Float[Array, "B L D"]:
    """Returns the weighted sum of each token's experts, without the experts' last bias.

    `gated` joins a token's products with `gate` and `up`. Under a mesh the rows lie as "batch", the weights as
    "experts", "expert_embed" and "mlp". Inside a `shard_map` over rows, as in sampling, each device has rows and
    experts of its own already, and these experts' weights are whole.
    """
    free = free_axes()
    if not free:
        x_TD, weights_TX, chosen_TX = (a.reshape(-1, a.shape[-1]) for a in (x_BLD, weights_BLX, chosen_BLX))
        out_TD = _own_experts(x_TD, weights_TX, chosen_TX, experts, gated, 0, len(experts.gate_EDF))
        return out_TD.reshape(x_BLD.shape)

    def place(*logical_axes: str) -> PartitionSpec:
        return partition(logical_axes, mesh_axes=free)

    product, bias = place("experts", "expert_embed", "mlp"), place("experts", "mlp")
    specs = Experts(
        product,
        product,
        place("experts", "mlp", "expert_embed"),
        None if experts.gate_bias_EF is None else bias,
        None if experts.up_bias_EF is None else bias,
    )
    rows = place("batch", "length")
    return jax.shard_map(
        partial(_on_device, gated=gated, gather="fsdp" in free),
        in_specs=(rows, rows, rows, specs),
        out_specs=rows,
        axis_names=set(free),
        check_vma=False,
    )(x_BLD, weights_BLX, chosen_BLX, experts)


def _on_device(
    x_BLD: Array, weights_BLX: Array, chosen_BLX: Array, experts: Experts, *, gated: Callable, gather: bool
) -> Array:
    """The sum for one device's rows; collectives bring in other devices' weights (if `gather`) and tokens."""
    if gather:
        experts = experts._replace(
            gate_EDF=jax.lax.all_gather(experts.gate_EDF, "fsdp", axis=1, tiled=True),
            up_EDF=jax.lax.all_gather(experts.up_EDF, "fsdp", axis=1, tiled=True),
            down_EFD=jax.lax.all_gather(experts.down_EFD, "fsdp", axis=2, tiled=True),
        )
    own = len(experts.gate_EDF)
    x_TD, weights_TX, chosen_TX = (
        jax.lax.all_gather(a.reshape(-1, a.shape[-1]), "expert", tiled=True) for a in (x_BLD, weights_BLX, chosen_BLX)
    )
    first = jax.lax.axis_index("expert") * own
    out_TD = _own_experts(x_TD, weights_TX, chosen_TX, experts, gated, first, own * jax.lax.axis_size("expert"))
    out_TD = jax.lax.psum_scatter(jax.lax.psum(out_TD, "tensor"), "expert", tiled=True)
    return out_TD.reshape(x_BLD.shape)


def _own_experts(
    x_TD: Array,
    weights_TX: Array,
    chosen_TX: Array,
    experts: Experts,
    gated: Callable[[Array, Array], Array],
    first: Array | int,
    of: int,
) -> Array:
    """What a device's experts add to each token: `own` experts of all `of`, beginning with number `first`."""
    (t, d), x, own = x_TD.shape, chosen_TX.shape[1], len(experts.gate_EDF)
    group_P = chosen_TX.reshape(-1) - first
    group_P = jnp.where((group_P >= 0) & (group_P < own), group_P, own)  # other devices' pairs come last
    order_P = jnp.argsort(group_P)
    places_P = jnp.argsort(order_P)
    sizes_E = jnp.sum(group_P[:, None] == jnp.arange(own, dtype=group_P.dtype)[None], axis=0, dtype=jnp.int32)
    of_row_P = jnp.minimum(group_P[order_P], own - 1)
    tile = min(max(_LEAST_ROWS, 1 << (-(-t * x // of) - 1).bit_length()), MOST_ROWS)

    def of_groups(x_P_: Array, weight_E__: Array, bias_E_: Array | None) -> Array:
        out_P_ = grouped_product(x_P_, weight_E__, sizes_E, tile)
        return out_P_ if bias_E_ is None else out_P_ + bias_E_[of_row_P]

    x_PD = _permute(jnp.broadcast_to(x_TD[:, None], (t, x, d)).reshape(-1, d), order_P, places_P)
    gate_PF = keep(of_groups(x_PD, experts.gate_EDF, experts.gate_bias_EF))
    up_PF = keep(of_groups(x_PD, experts.up_EDF, experts.up_bias_EF))
    out_PD = of_groups(gated(gate_PF, up_PF), experts.down_EFD, None)
    out_TXD = _permute(out_PD, places_P, order_P).reshape(t, x, d)
    return product("TXD,TX->TD", out_TXD, weights_TX).astype(x_TD.dtype)


@jax.custom_vjp
def _permute(x_PD: Array, order_P: Array, inverse_P: Array) -> Array:
    """x[order_P], whose derivative is a look-up by `inverse_P` as well, where JAX's own derivative would scatter."""
    return x_PD[order_P]


_permute.defvjp(
    lambda x_PD, order_P, inverse_P: (x_PD[order_P], inverse_P),
    lambda inverse_P, d_out_PD: (d_out_PD[inverse_P], None, None),
)
