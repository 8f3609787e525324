"""Rotary position embedding (arXiv 2104.09864) and the rescalings that transformers knows for long contexts.

Legend: B rows, L tokens, H heads, K head size, P = K/2 rotated pairs. Angles, sines and cosines are float32 whatever
the model's type: bfloat16 can't tell neighbouring positions apart past 256.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from o1p_jax.models.config import RopeConfig


def rotate(
    x_BLHK: Float[Array, "B L H K"], angles: tuple[Float[Array, "B L P"], Float[Array, "B L P"]]
) -> Float[Array, "B L H K"]:
    """Turns the pairs (i, i + P) of every head's first 2P numbers, as Hugging Face checkpoints lay them out."""
    cos, sin = (a[:, :, None, :] for a in angles)
    pairs = cos.shape[-1]
    x32 = x_BLHK.astype(jnp.float32)
    first, second, rest = jnp.split(x32, (pairs, 2 * pairs), axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
    return turned.astype(x_BLHK.dtype)


def rope_angles(
    rope: RopeConfig, head_dim: int, positions_BL: Int[Array, "B L"], longest_BL: Int[Array, "B L"]
) -> tuple[Float[Array, "B L P"], Float[Array, "B L P"]]:
    """Returns the cosines and sines of the positions, float32, already multiplied by the attention factor.

    `longest_BL` is the length of the text that each token belongs to.
    """
    freqs, factor = rope_frequencies(rope, head_dim, longest_BL)
    if freqs.ndim == 1:
        freqs = jnp.asarray(freqs)[None, None]
    angles_BLP = positions_BL[..., None].astype(jnp.float32) * freqs
    return jnp.cos(angles_BLP) * factor, jnp.sin(angles_BLP) * factor


def text_lengths(positions_BL: Int[Array, "B L"], segments_BL: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Returns for each token of packed rows the length of its text.

    The length is one more than the last position of the token's segment.
    """
    length = positions_BL.shape[1]
    ends_BL = jnp.pad(segments_BL[:, 1:] != segments_BL[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    places_BL = jnp.where(ends_BL, jnp.arange(length, dtype=jnp.int32)[None], length)
    last_BL = jax.lax.cummin(places_BL, axis=1, reverse=True)
    return jnp.take_along_axis(positions_BL, last_BL, axis=1) + 1


def rope_frequencies(
    rope: RopeConfig, head_dim: int, longest: Int[Array, "*B"] | None = None
) -> tuple[np.ndarray | Array, float]:
    """Returns the angle a position of each rotated pair (float32), and the factor on sine and cosine.

    The definitions are those of transformers' modeling_rope_utils.py: `linear` divides all angles, `llama3` those of
    wavelengths beyond the original context, `yarn` (arXiv 2309.00071, section 3.2) ramps between the two and scales the
    attention. `dynamic` and `longrope` depend on the length of the text, `longest`, and give each length angles of its
    own (leading axes of the result): `dynamic` raises the base with the length, `longrope` (arXiv 2402.13753) has one
    list of divisors up to the original context and one beyond.
    """
    dim = int(head_dim * rope.partial_rotary_factor)
    exponents_P = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    freqs_P = np.float32(1) / np.float32(rope.rope_theta) ** exponents_P
    match rope.rope_type:
        case "default":
            return freqs_P, 1.0
        case "linear":
            return freqs_P / np.float32(rope.factor), 1.0
        case "llama3":
            return _llama3(freqs_P, rope).astype(np.float32), 1.0
        case "yarn":
            assert rope.factor is not None
            ramp_P = _yarn_ramp(rope, dim)
            scaled_P = freqs_P / rope.factor * ramp_P + freqs_P * (1 - ramp_P)
            return scaled_P.astype(np.float32), _yarn_attention_factor(rope)
    assert longest is not None and rope.original_max_position_embeddings is not None
    original = rope.original_max_position_embeddings
    if rope.rope_type == "dynamic":
        assert rope.factor is not None
        stretch = rope.factor * jnp.maximum(longest, original).astype(jnp.float32) / original - (rope.factor - 1)
        base = rope.rope_theta * stretch ** (dim / (dim - 2))
        return 1.0 / base[..., None] ** jnp.asarray(exponents_P).reshape((1,) * longest.ndim + (-1,)), 1.0
    assert rope.short_factor is not None and rope.long_factor is not None
    bases_P = np.float32(rope.rope_theta) ** exponents_P
    divisors = (np.asarray(factors, np.float32) * bases_P for factors in (rope.short_factor, rope.long_factor))
    short, long = (jnp.asarray(1 / d).reshape((1,) * longest.ndim + (-1,)) for d in divisors)
    return jnp.where((longest > original)[..., None], long, short), _longrope_attention_factor(rope)


def _llama3(freqs: np.ndarray, rope: RopeConfig) -> np.ndarray:
    """The frequencies with long wavelengths divided by the factor, short ones kept, and a ramp between them."""
    low, high, original = rope.low_freq_factor, rope.high_freq_factor, rope.original_max_position_embeddings
    assert low is not None and high is not None and original is not None
    turns = original * freqs / (2 * math.pi)  # rotations within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - smooth) * freqs / rope.factor + smooth * freqs


def _yarn_ramp(rope: RopeConfig, dim: int) -> np.ndarray:
    """0 where a pair turns often enough to keep its angle, 1 where the angle is divided by the factor."""
    original = rope.original_max_position_embeddings
    assert original is not None

    def pair_turning(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    low, high = pair_turning(rope.beta_fast or 32.0), pair_turning(rope.beta_slow or 1.0)
    if rope.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    return np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    """The factor on sine and cosine under `yarn`."""

    def mscale(weight: float = 1.0) -> float:
        assert rope.factor is not None
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale()


def _longrope_attention_factor(rope: RopeConfig) -> float:
    """The factor on sine and cosine under `longrope`."""
    assert rope.factor is not None and rope.original_max_position_embeddings is not None
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_position_embeddings))
