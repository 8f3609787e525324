"""How a token is drawn from the logits: temperature, then top-k, then top-p, with a random key for each row.

Legend: B rows, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from o1p_jax.models.attention.scoring import MASKED


class Draw(NamedTuple):
    """How a token is drawn from the logits; the fields are those of `SamplingParams`."""

    temperature: float
    top_p: float
    top_k: int


def draw_tokens(
    logits_BV: Float[Array, "B V"], keys_B2: UInt32[Array, "B 2"], counts_B: Int[Array, "B"], draw: Draw
) -> Int[Array, "B"]:
    """Returns one token a row: the likeliest at temperature 0, else one drawn after temperature, top-k, then top-p.

    Token number `counts_B` of a completion is drawn with the row's key folded with that number. Where the logits are
    not finite the result is V, which is no token.
    """
    if draw.temperature == 0:
        return _first(logits_BV == jnp.max(logits_BV, axis=-1, keepdims=True))
    logits_BV = logits_BV / draw.temperature
    if 0 < draw.top_k < logits_BV.shape[1]:
        least_B1 = jax.lax.top_k(logits_BV, draw.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV < least_B1, MASKED, logits_BV)
    if draw.top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
        kept_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV < draw.top_p  # the token that crosses top_p stays
        least_B1 = jnp.min(jnp.where(kept_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, MASKED, logits_BV)

    def uniform(key_2: Array, count: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), count))

    # The inverse of the cumulative distribution: one random number a token, where Gumbel noise takes one a word.
    weights_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
    cumulated_BV = jnp.where(weights_BV > 0, jnp.cumsum(weights_BV, axis=-1), 0.0)
    drawn_B1 = jax.vmap(uniform)(keys_B2, counts_B)[:, None] * jnp.max(cumulated_BV, axis=-1, keepdims=True)
    return _first(cumulated_BV > drawn_B1)


def token_logprobs(logits_BV: Float[Array, "B V"], tokens_B: Int[Array, "B"]) -> Float[Array, "B"]:
    """Returns the log-probability (nats) of one token a row at temperature 1 over all words; NaN for no token."""
    chosen_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=1, mode="fill")[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=1)


def _first(mask_BV: Array) -> Array:
    """The first true column of each row; as a minimum, because XLA's argmax is slow on a CPU."""
    return jnp.min(jnp.where(mask_BV, jnp.arange(mask_BV.shape[1], dtype=jnp.int32)[None], mask_BV.shape[1]), axis=-1)
