"""AdamW, the schedule of its learning rate, and the parameters that its weight decay leaves alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from o1p_jax.config.tree import OptimConfig

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Number of a step, from 0 -> learning rate."""


def learning_rate(optim: OptimConfig, steps: int) -> Schedule:
    """Returns the schedule: a linear warm-up over the share `optim.warmup` of the steps, then a cosine down to 0.

    The first step already has a share of the peak (step 0 of a warm-up from zero would train nothing).
    """
    warmup = round(optim.warmup * steps)

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        rising = (step + 1) / max(warmup, 1)
        progress = (step - warmup) / max(steps - warmup, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
        return optim.learning_rate * jnp.where(step < warmup, rising, falling)

    return schedule


def make_optimizer(optim: OptimConfig) -> optax.GradientTransformation:
    """Returns clipping by the global norm, then AdamW without its learning rate, which follows the step's number.

    A skipped step leaves Adam's own count, and so its bias correction, behind; the schedule goes on.
    """
    return optax.chain(
        optax.clip_by_global_norm(optim.max_grad_norm),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.adam_eps),
        optax.add_decayed_weights(optim.weight_decay, mask=_decayed),
    )


def _decayed(params: Any) -> Any:
    """A tree of booleans: weight decay is for matrices, and leaves norm scales, biases and attention sinks alone."""

    def is_matrix(path: tuple, _: Any) -> bool:
        name = jax.tree_util.keystr(path)
        return not any(part in name for part in ("norm", "bias", "sinks"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)
