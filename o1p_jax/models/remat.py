"""Rematerialisation: what the forward pass keeps for the backward pass, and what the backward pass computes again."""

from collections.abc import Callable
from typing import Literal

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

KEPT = "kept"
"""The `checkpoint_name` of the arrays that light rematerialisation keeps."""

Remat = Literal["none", "light", "full"]
"""How much is computed again: nothing, what is cheap, or all but the layers' inputs."""


def keep(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Marks `x` as one of the arrays that light rematerialisation keeps; the value is unchanged."""
    return checkpoint_name(x, KEPT)


def rematerialized(layer: Callable, remat: Remat) -> Callable:
    """The function `layer`, which keeps for the backward pass what `remat` says.

    "none" keeps all that the compiler needs, "light" what is marked by `keep`, "full" the layer's inputs only.
    """
    if remat == "none":
        return layer
    kept = [KEPT] if remat == "light" else []
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*kept))
