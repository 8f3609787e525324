"""The clipped objective over whole sequences.

Shapes: R rows, L tokens a row, M sequences a row. Everything is summed, nothing averaged: rows, microbatches and
devices hold different numbers of sequences, so the one division happens at the end, in the training step.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from o1p_jax.methods.base import Sequences


def sequence_ratio(
    log_ratio_RL: Float[Array, "R L"],
    mask_RL: Bool[Array, "R L"],
    segments_RL: Int[Array, "R L"],
    segments: int,
    kind: Literal["geometric", "sequence"],
    max_log_ratio: float,
) -> tuple[Float[Array, "R M"], Bool[Array, "R M"]]:
    """Returns pi_theta / pi_ref of each packed sequence, over its completion tokens (`mask_RL`), and if it was clamped.

    geometric: exp of the mean log-ratio a token, what the authors' code does (the sequence ratio of GSPO,
    arXiv 2507.18071, eq. 5, with the old policy fixed at pi_ref). sequence: exp of the sum, the paper's objective
    (arXiv 2501.12570, section 4). Before exp the log-ratio is clamped to +-`max_log_ratio` (nats), because the sum
    over thousands of tokens overflows; a clamped sequence has no gradient. Sequences that are not there have ratio 1.
    """
    member_RLM = segments_RL[:, :, None] == jnp.arange(1, segments + 1, dtype=segments_RL.dtype)[None, None, :]
    member_RLM &= mask_RL[:, :, None]
    # where, not a product: a padding position may hold anything, and 0 * inf is NaN.
    log_ratio_RM = jnp.sum(jnp.where(member_RLM, log_ratio_RL[:, :, None], 0.0), axis=1)
    if kind == "geometric":
        log_ratio_RM /= jnp.maximum(jnp.sum(member_RLM, axis=1, dtype=jnp.float32), 1.0)
    clamped_RM = jnp.abs(log_ratio_RM) > max_log_ratio
    return jnp.exp(jnp.clip(log_ratio_RM, -max_log_ratio, max_log_ratio)), clamped_RM


def clipped_objective(
    ratio_RM: Float[Array, "R M"], weight_RM: Float[Array, "R M"], epsilon: float
) -> Float[Array, "R M"]:
    """Returns -min(r w, clip(r, 1 - eps, 1 + eps) w) of each sequence (arXiv 2501.12570, section 4).

    w is the sequence's advantage.
    """
    return -jnp.minimum(ratio_RM * weight_RM, jnp.clip(ratio_RM, 1 - epsilon, 1 + epsilon) * weight_RM)


def clipped_away(ratio_RM: Float[Array, "R M"], weight_RM: Float[Array, "R M"], epsilon: float) -> Bool[Array, "R M"]:
    """Returns where `clipped_objective` leaves a sequence without gradient: its ratio went its weight's way too far."""
    too_high_RM = (weight_RM > 0) & (ratio_RM > 1 + epsilon)
    too_low_RM = (weight_RM < 0) & (ratio_RM < 1 - epsilon)
    return too_high_RM | too_low_RM


class LossSums(NamedTuple):
    """Sums over the sequences of a microbatch; float32 scalars."""

    loss: Float[Array, ""]
    ratio: Float[Array, ""]
    ratio_min: Float[Array, ""]
    ratio_max: Float[Array, ""]
    clipped: Float[Array, ""]
    """The number of sequences whose gradient the clip range cut off."""
    clamped: Float[Array, ""]
    """The number of sequences whose log-ratio exceeded `method.max_log_ratio`."""
    sequences: Float[Array, ""]
    tokens: Float[Array, ""]
    """The number of tokens in the rows, prompts included."""

    @classmethod
    def zero(cls) -> "LossSums":
        zero = jnp.zeros((), jnp.float32)
        return cls(zero, zero, zero + jnp.inf, zero - jnp.inf, zero, zero, zero, zero)

    def __add__(self, other: "LossSums") -> "LossSums":  # type: ignore[override]
        total = jax.tree.map(jnp.add, tuple(self), tuple(other))
        return LossSums(*total)._replace(
            ratio_min=jnp.minimum(self.ratio_min, other.ratio_min),
            ratio_max=jnp.maximum(self.ratio_max, other.ratio_max),
        )


def sum_up(
    sequences: Sequences,
    loss_RM: Float[Array, "R M"],
    ratio_RM: Float[Array, "R M"],
    clipped_RM: Bool[Array, "R M"],
    clamped_RM: Bool[Array, "R M"],
) -> LossSums:
    """Returns the sums over the sequences that are present; `loss`, the sum of `loss_RM`, is what is differentiated."""
    present_RM = sequences.present_RM

    def total(values_RM):
        return jnp.sum(jnp.where(present_RM, values_RM.astype(jnp.float32), 0.0))

    return LossSums(
        loss=total(loss_RM),
        ratio=total(ratio_RM),
        ratio_min=jnp.min(ratio_RM, where=present_RM, initial=jnp.inf),
        ratio_max=jnp.max(ratio_RM, where=present_RM, initial=-jnp.inf),
        clipped=total(clipped_RM),
        clamped=total(clamped_RM),
        sequences=total(present_RM),
        tokens=jnp.sum(sequences.segments_RL > 0, dtype=jnp.float32),
    )
