"""How likely the model in a folder finds tokens that another program says are the model's own.

Legend: B rows, L tokens a row, T tokens of an answer, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from o1p_jax.config.mesh import parse_mesh
from o1p_jax.devices.mesh import mesh_of
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import graph, param_shardings
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.sampling.base import Answer

_ROWS = 4
"""The number of answers that are scored at a time, where no more devices share them out."""


class Scores(NamedTuple):
    """What the model says of an answer's T tokens; NumPy arrays, in nats."""

    logprob_T: np.ndarray
    """The log-probability of each token after the prompt and the tokens before it."""
    gap_T: np.ndarray
    """How much less likely each token is than the likeliest one; 0 where it is the likeliest."""


def score(folder: Path, dtype: str, answers: Sequence[Answer]) -> list[Scores]:
    """Returns the scores of `answers` by the Hugging Face folder's model, computed in `dtype` on this host's devices.

    The weights are split over as many devices as divide the model, and are in memory during the call only.
    """
    cfg = load_config(folder)
    mesh = _mesh(cfg)
    params = load_params(folder, cfg, mesh, dtype=jnp.dtype(dtype), shardings=param_shardings(cfg, mesh))
    rows = -(-_ROWS // mesh.size) * mesh.size
    longest = max(len(a.prompt_ids) + len(a.token_ids) for a in answers)
    length, most = -(-longest // 128) * 128, max(len(a.token_ids) for a in answers)

    @jax.jit
    def of_rows(
        params: nnx.State, ids_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], starts_B: Int[Array, "B"]
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            model = nnx.merge(graph(cfg), params)
            positions_BL = jnp.broadcast_to(jnp.arange(length)[None], ids_BL.shape)
            segments_BL = (positions_BL < lengths_B[:, None]).astype(jnp.int32)
            hidden_BLD = model(ids_BL, positions_BL, segments_BL, dtype=jnp.dtype(dtype), most_segments=1)
            places_BT = jnp.minimum(starts_B[:, None] + jnp.arange(most)[None], length - 1)
            before_BTD = jnp.take_along_axis(hidden_BLD, (places_BT - 1)[..., None], axis=1)
            head_DV = model.head_DV().astype(dtype)
            product_BTV = jnp.einsum("BTD,DV->BTV", before_BTD, head_DV, preferred_element_type=jnp.float32)
            logits_BTV = model.logits(product_BTV)
            tokens_BT = jnp.take_along_axis(ids_BL, places_BT, axis=1)
            chosen_BT = jnp.take_along_axis(logits_BTV, tokens_BT[..., None], axis=2)[..., 0]
            return chosen_BT - jax.nn.logsumexp(logits_BTV, axis=-1), jnp.max(logits_BTV, axis=-1) - chosen_BT

    found = []
    for first in range(0, len(answers), rows):
        part = answers[first : first + rows]
        ids_BL, (lengths_B, starts_B) = np.zeros((rows, length), np.int32), np.ones((2, rows), np.int32)
        for b, answer in enumerate(part):
            text = answer.prompt_ids + answer.token_ids
            ids_BL[b, : len(text)], lengths_B[b], starts_B[b] = text, len(text), len(answer.prompt_ids)
        logprobs_BT, gaps_BT = map(np.asarray, of_rows(params, ids_BL, lengths_B, starts_B))
        for answer, logprob_T, gap_T in zip(part, logprobs_BT, gaps_BT, strict=False):
            n = len(answer.token_ids)
            found.append(Scores(logprob_T[:n], gap_T[:n]))
    return found


def _mesh(cfg: DecoderConfig) -> Mesh:
    """Returns the mesh of as many of this process's devices, along fsdp, as divide the model."""
    devices = jax.local_devices()
    n = next(n for n in range(len(devices), 0, -1) if all(size % n == 0 for _, size in cfg.axis_sizes().values()))
    return mesh_of(devices[:n], tuple(parse_mesh(f"{n}x1").values()))
