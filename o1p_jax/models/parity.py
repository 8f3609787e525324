"""The decoder is compared with transformers on a user's own model: are both the same function?

Both get the same random tokens, a few hundred of them, at positions that are spread wider and wider: 256 tokens can lie
32,768 positions apart, so that an error in a rescaled rotary embedding shows without a long text.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import graph
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.precision import products_of
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say, track

_TOLERANCE = 1e-3
"""The greatest difference of two equal functions, in standard deviations of the logits.

Rounding of float32 stays far below, a wrong formula far above.
"""
_SHARE = 0.99
"""The share of the positions that must keep to the tolerance.

At a few positions, float32 loses digits on either side: where activations are extreme, or where two experts are almost
as likely.
"""
_TOKENS = 256
"""The number of tokens that are compared."""


class ParityRow(NamedTuple):
    """The comparison over positions 0 to `span` - 1."""

    span: int
    difference: float
    """Greatest absolute difference of two logits."""
    usual: float
    """The difference that a share _SHARE of the positions does not exceed."""
    spread: float
    """Standard deviation of transformers' logits."""
    kl: float
    """Mean KL divergence of the decoder's next-token distribution from transformers', in nats."""
    top1: float
    """Share of tokens with the same likeliest next token."""

    @property
    def equal(self) -> bool:
        """Whether the usual difference stays within the tolerance."""
        return math.isfinite(self.difference) and self.usual <= _TOLERANCE * self.spread


class Parity(NamedTuple):
    """The result of `check_parity`."""

    model: str
    rows: tuple[ParityRow, ...]

    @property
    def equal(self) -> bool:
        """Whether decoder and transformers agree at every span."""
        return all(row.equal for row in self.rows)

    @property
    def verdict(self) -> str:
        """The result in one line, for people."""
        worst = max(self.rows, key=lambda row: row.usual / row.spread)
        return (
            f"{self.model}: {'equals' if self.equal else 'DOES NOT EQUAL'} transformers in float32; "
            f"at {_SHARE:.0%} of positions differences up to {worst.usual:.1e} logits (their standard deviation is "
            f"{worst.spread:.2f}), greatest {max(row.difference for row in self.rows):.1e}, KL "
            f"{max(row.kl for row in self.rows):.1e} nats, top-1 agreement {min(row.top1 for row in self.rows):.2%}"
        )


def check_parity(model: str, revision: str | None = None) -> Parity:
    """Compares the decoder's float32 logits with transformers' on the CPU, for `model`: a folder or a hub name.

    The comparison needs PyTorch, and memory for the model twice in float32. Raises BadInput as loading does.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as e:
        raise BadInput(f"check_parity needs {e.name}: pip install 'torch>=2.13'") from None
    folder = resolve_model(model, revision)
    cfg = load_config(folder)
    ours = nnx.merge(graph(cfg), load_params(folder, cfg, make_mesh("1x1")))
    say("load model with transformers")
    # "eager": PyTorch's own attention leaves out soft caps.
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    @jax.jit
    @products_of(jnp.float32)
    def logits(ids_BL, positions_BL):
        return ours.logits(ours(ids_BL, positions_BL, jnp.ones_like(ids_BL)) @ ours.head_DV())

    rng = np.random.default_rng(0)
    rows = []
    with track("compare", total=len(spans(cfg)), unit="spans") as bar:
        for span in spans(cfg):
            n = min(span, _TOKENS)
            positions_BL = np.linspace(0, span - 1, n, dtype=np.int32)[None]
            ids_BL = rng.integers(0, cfg.vocab_size, (1, n), dtype=np.int32)
            torch_ids = torch.tensor(ids_BL, dtype=torch.long)
            with torch.no_grad():
                expected_BLV = theirs(
                    torch_ids,
                    # Without a mask, positions with gaps are taken for those of several packed texts.
                    attention_mask=torch.ones_like(torch_ids),
                    position_ids=torch.tensor(positions_BL, dtype=torch.long),
                ).logits.numpy()
            rows.append(compare(span, np.asarray(logits(jnp.asarray(ids_BL), jnp.asarray(positions_BL))), expected_BLV))
            bar.advance()
    return Parity(model, tuple(rows))


def spans(cfg: DecoderConfig) -> list[int]:
    """Returns the spans of positions to compare.

    They are dense text, the original context of every rotary embedding, four times that, and the model's own length.
    """
    originals = {kind.rope.original_max_position_embeddings for kind in cfg.kinds if kind.rope is not None} - {None}
    chosen = {_TOKENS, cfg.max_positions} | {n * factor for n in originals if n is not None for factor in (1, 4)}
    return sorted(chosen)


def compare(span: int, ours_BLV: Float[np.ndarray, "B L V"], theirs_BLV: Float[np.ndarray, "B L V"]) -> ParityRow:
    """Returns one row of the result from both sides' logits."""

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    ours, theirs = log_softmax(ours_BLV), log_softmax(theirs_BLV)
    of_position_BL = np.abs(ours_BLV - theirs_BLV).max(-1)
    difference = float(of_position_BL.max())
    return ParityRow(
        span=span,
        difference=difference if math.isfinite(difference) else math.inf,
        usual=float(np.quantile(of_position_BL, _SHARE)),
        spread=float(theirs_BLV.std()),
        kl=float((np.exp(theirs) * (theirs - ours)).sum(-1).mean()),
        top1=float((ours_BLV.argmax(-1) == theirs_BLV.argmax(-1)).mean()),
    )
