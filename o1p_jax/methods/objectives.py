"""What training lowers: the clipped objective, the loss of pairs and the likelihood, over whole sequences.

Shapes: R rows, L tokens a row, M sequences a row. Everything is summed, nothing averaged: rows, microbatches and
devices hold different numbers of sequences, so the one division happens at the end, in the training step.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from o1p_jax.methods.base import Sequences

_LARGEST_LOG_RATIO = 20.0
"""Where no ratio is part of the loss, the log of those in the metrics is clamped to this."""


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
    log_ratio_RM, tokens_RM = sequence_sums(log_ratio_RL, mask_RL, segments_RL, segments)
    if kind == "geometric":
        log_ratio_RM /= jnp.maximum(tokens_RM, 1.0)
    clamped_RM = jnp.abs(log_ratio_RM) > max_log_ratio
    return jnp.exp(jnp.clip(log_ratio_RM, -max_log_ratio, max_log_ratio)), clamped_RM


def sequence_sums(
    values_RL: Float[Array, "R L"], mask_RL: Bool[Array, "R L"], segments_RL: Int[Array, "R L"], segments: int
) -> tuple[Float[Array, "R M"], Float[Array, "R M"]]:
    """Returns the sums of the values over each packed sequence's completion tokens (`mask_RL`), and these' number."""
    member_RLM = segments_RL[:, :, None] == jnp.arange(1, segments + 1, dtype=segments_RL.dtype)[None, None, :]
    member_RLM &= mask_RL[:, :, None]
    # where, not a product: a padding position may hold anything, and 0 * inf is NaN.
    sum_RM = jnp.sum(jnp.where(member_RLM, values_RL[:, :, None], 0.0), axis=1)
    return sum_RM, jnp.sum(member_RLM, axis=1, dtype=jnp.float32)


def clipped_objective(
    ratio_RM: Float[Array, "R M"], weight_RM: Float[Array, "R M"], epsilon: float, epsilon_high: float | None = None
) -> Float[Array, "R M"]:
    """Returns -min(r w, clip(r, 1 - epsilon, 1 + epsilon_high) w) of each sequence (arXiv 2501.12570, section 4).

    w is the sequence's advantage; `epsilon_high` left out: epsilon.
    """
    clipped_RM = jnp.clip(ratio_RM, 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    return -jnp.minimum(ratio_RM * weight_RM, clipped_RM * weight_RM)


def clipped_away(
    ratio_RM: Float[Array, "R M"], weight_RM: Float[Array, "R M"], epsilon: float, epsilon_high: float | None = None
) -> Bool[Array, "R M"]:
    """Returns where `clipped_objective` leaves a sequence without gradient: its ratio went its weight's way too far."""
    too_high_RM = (weight_RM > 0) & (ratio_RM > 1 + (epsilon if epsilon_high is None else epsilon_high))
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


def clipped_losses(
    sequences: Sequences, kind: Literal["geometric", "sequence"], max_log_ratio: float, epsilon: float,
    epsilon_high: float | None = None,
) -> LossSums:  # fmt: skip
    """Returns the sums of the sequences' clipped objectives, their weights being advantages."""
    ratio_RM, clamped_RM = _ratios(sequences, kind, max_log_ratio)
    loss_RM = clipped_objective(ratio_RM, sequences.weights_RM, epsilon, epsilon_high)
    clipped_RM = clipped_away(ratio_RM, sequences.weights_RM, epsilon, epsilon_high)
    return sum_up(sequences, loss_RM, ratio_RM, clipped_RM, clamped_RM)


def likelihood_losses(sequences: Sequences) -> LossSums:
    """Returns the sums of -w log pi(y): the log-probabilities of a sequence's tokens are added up, w is its weight."""
    logprob_RM, _ = _completions(sequences, sequences.logprobs_RL)
    return _without_clipping(sequences, -sequences.weights_RM * logprob_RM)


def dpo_losses(sequences: Sequences, beta: float) -> LossSums:
    """Returns the sums of -log sigmoid(beta (h(y_w) - h(y_l))), h = log(pi(y) / pi_ref(y)) (arXiv 2305.18290, eq. 7).

    Sequences 2 i - 1 and 2 i of a row are a pair, the winner first.
    """
    log_ratio_RM, _ = _completions(sequences, sequences.logprobs_RL - sequences.ref_logprobs_RL)
    return _without_clipping(sequences, _pair_losses(beta * log_ratio_RM, 0.0))


def simpo_losses(sequences: Sequences, beta: float, gamma: float) -> LossSums:
    """Returns the sums of -log sigmoid(s(y_w) - s(y_l) - gamma), s = beta log pi(y) / |y| (arXiv 2405.14734, eq. 6).

    Sequences 2 i - 1 and 2 i of a row are a pair, the winner first.
    """
    logprob_RM, tokens_RM = _completions(sequences, sequences.logprobs_RL)
    return _without_clipping(sequences, _pair_losses(beta * logprob_RM / jnp.maximum(tokens_RM, 1.0), gamma))


def _pair_losses(score_RM: Float[Array, "R M"], margin: float) -> Float[Array, "R M"]:
    """Returns the pairs' losses. A pair's loss stands at both its sequences: the mean of sequences is that of pairs."""
    score_RP2 = score_RM.reshape(len(score_RM), -1, 2)
    loss_RP = -jax.nn.log_sigmoid(score_RP2[:, :, 0] - score_RP2[:, :, 1] - margin)
    return jnp.repeat(loss_RP, 2, axis=1)


def _completions(sequences: Sequences, values_RL: Array) -> tuple[Array, Array]:
    return sequence_sums(values_RL, sequences.mask_RL, sequences.segments_RL, sequences.weights_RM.shape[1])


def _ratios(sequences: Sequences, kind: Literal["geometric", "sequence"], max_log_ratio: float) -> tuple[Array, Array]:
    return sequence_ratio(
        sequences.logprobs_RL - sequences.ref_logprobs_RL, sequences.mask_RL, sequences.segments_RL,
        sequences.weights_RM.shape[1], kind, max_log_ratio,
    )  # fmt: skip


def _without_clipping(sequences: Sequences, loss_RM: Float[Array, "R M"]) -> LossSums:
    """Returns the sums of losses that no ratio is part of; the geometric ratios are for the metrics alone."""
    ratio_RM, clamped_RM = _ratios(sequences, "geometric", _LARGEST_LOG_RATIO)
    return sum_up(sequences, loss_RM, ratio_RM, jnp.zeros_like(clamped_RM), clamped_RM)
