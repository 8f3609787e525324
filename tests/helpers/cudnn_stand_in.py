"""cuDNN's kernel for packed rows in plain JAX, with the kernel's arguments and results, run on any platform.

What the kernel doesn't write is not a number here.
"""

import jax
import jax.numpy as jnp

from o1p_jax.models.attention import gpu, packed


def install(monkeypatch, card="NVIDIA H100 80GB HBM3"):
    """Lets attention choose as on that card, and run the stand-in; returns the calls that are made."""
    calls = []

    def counted(f):
        def call(call, *arrays):
            calls.append((f.__name__, call, [x.shape for x in arrays]))
            return f(call, *arrays)

        return call

    monkeypatch.setattr(packed, "platform", lambda: "gpu")
    monkeypatch.setattr(packed, "card", lambda: card)
    monkeypatch.setattr(gpu, "kernel_forward", counted(forward))
    monkeypatch.setattr(gpu, "kernel_backward", counted(backward))
    return calls


def forward(call, q_BLHK, k_BLHK, v_BLHK, lengths_BM, offsets_BN):
    """Output [B, L, H, K] and the logarithms of sums of exponentials [B*M, H, L]."""
    seen, within_nT, scores_nHTT = _scores(call, q_BLHK, k_BLHK, lengths_BM, offsets_BN)
    sums_nHT = jax.nn.logsumexp(scores_nHTT, axis=-1)
    weights = jnp.exp(scores_nHTT - sums_nHT[..., None])
    out_nTHK = jnp.einsum("nHTU,UHK->nTHK", weights, _flat(v_BLHK))
    out = jnp.where(seen.any(0)[:, None, None], jnp.where(seen[..., None, None], out_nTHK, 0).sum(0), jnp.nan)
    stats_nHL = jnp.full((lengths_BM.size, q_BLHK.shape[2], q_BLHK.shape[1]), jnp.nan, jnp.float32)
    numbers = jnp.broadcast_to(jnp.arange(lengths_BM.size)[:, None], seen.shape)
    numbers = jnp.where(seen, numbers, lengths_BM.size)
    stats_nHL = stats_nHL.at[numbers, :, within_nT].set(sums_nHT.swapaxes(1, 2), mode="drop")
    return out.reshape(q_BLHK.shape).astype(q_BLHK.dtype), stats_nHL


def backward(call, q_BLHK, k_BLHK, v_BLHK, stats_nHL, out_BLHK, d_out_BLHK, lengths_BM, offsets_BN):
    """The derivatives by queries, keys and values, from the weights that scores and stats give."""
    seen, within_nT, scores_nHTT = _scores(call, q_BLHK, k_BLHK, lengths_BM, offsets_BN)
    numbers = jnp.arange(lengths_BM.size)[:, None]
    stats_nTH = stats_nHL.at[numbers, :, within_nT].get(mode="clip")
    stats_nHT = jnp.where(seen[..., None], stats_nTH, 0).swapaxes(1, 2)
    weights = jnp.where(seen[:, None, :, None], jnp.exp(scores_nHTT - stats_nHT[..., None]), 0)
    d_out, out = jnp.where(seen.any(0)[:, None, None], jnp.stack([_flat(d_out_BLHK), _flat(out_BLHK)]), 0)
    mean_HT = jnp.sum(d_out * out, axis=-1).T
    d_weights = jnp.einsum("THK,UHK->HTU", d_out, _flat(v_BLHK))
    d_scores = (weights * (d_weights - mean_HT[..., None])[None]).sum(0) * call.scale
    d_q = jnp.einsum("HTU,UHK->THK", d_scores, _flat(k_BLHK))
    d_k = jnp.einsum("HTU,THK->UHK", d_scores, _flat(q_BLHK))
    d_v = jnp.einsum("HTU,THK->UHK", weights.sum(0), d_out)
    written = seen.any(0)[:, None, None]
    return tuple(jnp.where(written, d, jnp.nan).reshape(q_BLHK.shape).astype(q_BLHK.dtype) for d in (d_q, d_k, d_v))


def _flat(x_BLHK):
    return x_BLHK.reshape(-1, *x_BLHK.shape[2:]).astype(jnp.float32)


def _scores(call, q_BLHK, k_BLHK, lengths_BM, offsets_BN):
    """Which of all tokens each segment has, the tokens' places in it, and its masked scores [n, H, T, T]."""
    b, length, h, k = q_BLHK.shape
    assert k_BLHK.shape == q_BLHK.shape and lengths_BM.shape == (b, call.segments)
    assert offsets_BN.shape == (b, call.segments + 1) and offsets_BN.dtype == lengths_BM.dtype == jnp.int32
    lengths_n, starts_n = lengths_BM.reshape(-1), offsets_BN.reshape(-1)[: lengths_BM.size] // (h * k)
    within_nT = jnp.arange(b * length)[None] - starts_n[:, None]
    seen = (within_nT >= 0) & (within_nT < lengths_n[:, None])
    distance = within_nT[:, :, None] - within_nT[:, None]
    mask = seen[:, :, None] & seen[:, None] & (distance >= 0) & (distance < (call.window or length))
    scores = call.scale * jnp.einsum("THK,UHK->HTU", _flat(q_BLHK), _flat(k_BLHK))
    return seen, within_nT, jnp.where(mask[:, None], scores[None], -1e30)
