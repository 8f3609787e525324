"""Rotary position embedding (arXiv 2104.09864) and the rescalings that transformers knows for long contexts.

Legend: B rows, L tokens, H heads, K head size, P = K/2 rotated pairs. Angles, sines and cosines are float32 whatever
the model's type: bfloat16 can't tell neighbouring positions apart past 256.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from o1p_jax.models.config import RopeConfig


def rope_frequencies(rope: RopeConfig, head_dim: int) -> tuple[np.ndarray, float]:
    """Angle a position for each of the head_dim/2 pairs (float32), and the factor on sine and cosine.

    Definitions as in transformers' modeling_rope_utils.py: `linear` divides all angles, `llama3` those of wavelengths
    beyond the original context, `yarn` (arXiv 2309.00071, section 3.2) ramps between the two and scales the attention.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    freqs = np.float32(1) / np.float32(rope.rope_theta) ** exponents
    if rope.rope_type == "default":
        return freqs, 1.0
    assert rope.factor is not None
    if rope.rope_type == "linear":
        return freqs / np.float32(rope.factor), 1.0
    if rope.rope_type == "llama3":
        return _llama3(freqs, rope).astype(np.float32), 1.0
    ramp = _yarn_ramp(rope, head_dim)
    return (freqs / rope.factor * ramp + freqs * (1 - ramp)).astype(np.float32), _yarn_attention_factor(rope)


def _llama3(freqs: np.ndarray, rope: RopeConfig) -> np.ndarray:
    low, high, original = rope.low_freq_factor, rope.high_freq_factor, rope.original_max_position_embeddings
    assert low is not None and high is not None and original is not None
    turns = original * freqs / (2 * math.pi)  # rotations within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - smooth) * freqs / rope.factor + smooth * freqs


def _yarn_ramp(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """0 where a pair turns often enough to keep its angle, 1 where the angle is divided by the factor."""
    original = rope.original_max_position_embeddings
    assert original is not None

    def pair_turning(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = pair_turning(rope.beta_fast or 32.0), pair_turning(rope.beta_slow or 1.0)
    if rope.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    return np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    def mscale(weight: float = 1.0) -> float:
        assert rope.factor is not None
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale()


def rope_angles(
    rope: RopeConfig, head_dim: int, positions_BL: Int[Array, "B L"]
) -> tuple[Float[Array, "B L P"], Float[Array, "B L P"]]:
    """Cosines and sines of the positions, float32, already multiplied by the attention factor."""
    freqs, factor = rope_frequencies(rope, head_dim)
    angles_BLP = positions_BL[..., None].astype(jnp.float32) * jnp.asarray(freqs)[None, None]
    return jnp.cos(angles_BLP) * factor, jnp.sin(angles_BLP) * factor


def rotate(
    x_BLHK: Float[Array, "B L H K"], angles: tuple[Float[Array, "B L P"], Float[Array, "B L P"]]
) -> Float[Array, "B L H K"]:
    """Turns the pairs (i, i + K/2) of every head, as Hugging Face checkpoints lay them out."""
    cos, sin = (a[:, :, None, :] for a in angles)
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLHK.dtype)
