"""Attention as its formula says it, for comparison."""

import jax
import jax.numpy as jnp

from o1p_jax.models.attention.scoring import Scoring


def plain_attention(q_BLHK, k_BLGK, v_BLGK, segments_BL, window=None, scoring=None, sinks_H=None):
    b, length, h, k = q_BLHK.shape
    repeats = h // k_BLGK.shape[2]
    keys, values = jnp.repeat(k_BLGK, repeats, axis=2), jnp.repeat(v_BLGK, repeats, axis=2)
    scoring = scoring or Scoring(k**-0.5)
    scores = scoring.scale * jnp.einsum("BLHK,BSHK->BHLS", q_BLHK, keys)
    if scoring.softcap is not None:
        scores = scoring.softcap * jnp.tanh(scores / scoring.softcap)
    distance = jnp.arange(length)[:, None] - jnp.arange(length)[None]
    mask = (segments_BL[:, :, None] == segments_BL[:, None]) & (distance >= 0)[None]
    mask &= (distance < (window or length))[None]
    scores = jnp.where(mask[:, None], scores, -jnp.inf)
    if sinks_H is not None:
        sinks = jnp.broadcast_to(sinks_H.reshape(1, -1, 1, 1), (b, h, length, 1))
        scores = jnp.concatenate([scores, sinks], axis=-1)
    return jnp.einsum("BHLS,BSHK->BLHK", jax.nn.softmax(scores, axis=-1)[..., :length], values)
