"""Token log-probabilities in chunks, and the clipped objective over whole sequences.

Shapes: B rows (R in batches), L tokens a row, D model width, V vocabulary, C tokens a chunk, M sequences a row.
Everything is summed, nothing averaged: rows, microbatches and devices hold different numbers of sequences, so
the one division happens at the end, in step.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from o1p_jax.batches import Batch
from o1p_jax.config import MethodConfig
from o1p_jax.mesh import free_axes, partition


def token_logprobs(
    hidden_BLD: Float[Array, "B L D"],
    head_DV: Float[Array, "D V"],
    targets_BL: Int[Array, "B L"],
    chunk: int,
    logits: Callable[[Array], Array] = lambda product: product,
) -> Float[Array, "B L"]:
    """Log-probability (natural log, float32, temperature 1) of each target under softmax(logits(hidden @ head)).

    Only `chunk` tokens a row and device have logits at a time, in the backward pass too, which computes them again: for
    152k words, the logits of whole rows are what runs out of memory first. Under a mesh, rows lie as "batch" and
    "length", the head as "embed" and "vocab": it is gathered once, and its gradient scattered once.
    """
    free = free_axes()
    device = partial(_logprobs_on_device, chunk=chunk, logits=logits, axes=free)
    if not free:
        return device(hidden_BLD, head_DV, targets_BL)
    rows = partition(("batch", "length"), mesh_axes=free)
    return jax.shard_map(
        device,
        in_specs=(rows, partition(("embed", "vocab"), mesh_axes=free), rows),
        out_specs=rows,
        axis_names=set(free),
        check_vma=False,
    )(hidden_BLD, head_DV, targets_BL)


def _logprobs_on_device(
    hidden_BLD: Array, head_DV: Array, targets_BL: Array, *, chunk: int, logits: Callable[[Array], Array],
    axes: tuple[str, ...],
) -> Array:  # fmt: skip
    """A device's rows, with its part of the vocabulary."""
    b, length, d = hidden_BLD.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    rest = chunks * chunk - length
    hidden_BLD = jnp.pad(hidden_BLD, ((0, 0), (0, rest), (0, 0)))
    targets_BL = jnp.pad(targets_BL, ((0, 0), (0, rest)))
    words_11V = jnp.arange(head_DV.shape[1], dtype=targets_BL.dtype)[None, None, :]
    if axes:
        head_DV = jax.lax.all_gather(head_DV, ("fsdp", "expert"), axis=0, tiled=True)
        words_11V += jax.lax.axis_index("tensor").astype(words_11V.dtype) * head_DV.shape[1]

    def over_words(local_BC: Array, reduce: Callable[[Array, str], Array]) -> Array:
        return reduce(local_BC, "tensor") if axes else local_BC

    @jax.checkpoint
    def one_chunk(hidden_BCD: Array, targets_BC: Array) -> Array:
        logits_BCV = logits(jnp.einsum("bcd,dv->bcv", hidden_BCD, head_DV, preferred_element_type=jnp.float32))
        # A masked sum, not a gather: a device holds only a part of the vocabulary.
        target_BC = jnp.sum(jnp.where(targets_BC[:, :, None] == words_11V, logits_BCV, 0.0), axis=-1)
        highest_BC = over_words(jax.lax.stop_gradient(jnp.max(logits_BCV, axis=-1)), jax.lax.pmax)
        total_BC = over_words(jnp.sum(jnp.exp(logits_BCV - highest_BC[..., None]), axis=-1), jax.lax.psum)
        return over_words(target_BC, jax.lax.psum) - highest_BC - jnp.log(total_BC)

    hidden_NBCD = hidden_BLD.reshape(b, chunks, chunk, d).swapaxes(0, 1)
    targets_NBC = targets_BL.reshape(b, chunks, chunk).swapaxes(0, 1)
    logprobs_NBC = jax.lax.map(lambda part: one_chunk(*part), (hidden_NBCD, targets_NBC))
    return logprobs_NBC.swapaxes(0, 1).reshape(b, chunks * chunk)[:, :length]


def sequence_ratio(
    log_ratio_RL: Float[Array, "R L"],
    mask_RL: Bool[Array, "R L"],
    segments_RL: Int[Array, "R L"],
    segments: int,
    kind: Literal["geometric", "sequence"],
    max_log_ratio: float,
) -> tuple[Float[Array, "R M"], Bool[Array, "R M"]]:
    """pi_theta / pi_ref of each packed sequence, over its completion tokens (`mask`), and whether it was clamped.

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
    """-min(r w, clip(r, 1 - eps, 1 + eps) w) of each sequence (arXiv 2501.12570, section 4; w is the advantage)."""
    return -jnp.minimum(ratio_RM * weight_RM, jnp.clip(ratio_RM, 1 - epsilon, 1 + epsilon) * weight_RM)


class LossSums(NamedTuple):
    """Sums over the sequences of a microbatch; float32 scalars."""

    loss: Float[Array, ""]
    ratio: Float[Array, ""]
    ratio_min: Float[Array, ""]
    ratio_max: Float[Array, ""]
    clipped: Float[Array, ""]
    """Sequences whose gradient the clip range cut off."""
    clamped: Float[Array, ""]
    """Sequences whose log-ratio exceeded `method.max_log_ratio`."""
    sequences: Float[Array, ""]
    tokens: Float[Array, ""]
    """Tokens in the rows, prompts included."""

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


def policy_loss(logprobs_RL: Float[Array, "R L"], batch: Batch, method: MethodConfig) -> LossSums:
    """The O1-Pruner loss (its `loss` field is what is differentiated), summed over a microbatch's sequences."""
    ratio_RM, clamped_RM = sequence_ratio(
        logprobs_RL - batch.ref_logprobs_RL, batch.mask_RL, batch.segments_RL, batch.weights_RM.shape[1],
        method.ratio_kind, method.max_log_ratio,
    )  # fmt: skip
    loss_RM = clipped_objective(ratio_RM, batch.weights_RM, method.epsilon)
    too_high_RM = (batch.weights_RM > 0) & (ratio_RM > 1 + method.epsilon)
    too_low_RM = (batch.weights_RM < 0) & (ratio_RM < 1 - method.epsilon)

    def total(values_RM):
        return jnp.sum(jnp.where(batch.present_RM, values_RM.astype(jnp.float32), 0.0))

    return LossSums(
        loss=total(loss_RM),
        ratio=total(ratio_RM),
        ratio_min=jnp.min(ratio_RM, where=batch.present_RM, initial=jnp.inf),
        ratio_max=jnp.max(ratio_RM, where=batch.present_RM, initial=-jnp.inf),
        clipped=total(too_high_RM | too_low_RM),
        clamped=total(clamped_RM),
        sequences=total(batch.present_RM),
        tokens=jnp.sum(batch.segments_RL > 0, dtype=jnp.float32),
    )
