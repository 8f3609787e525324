"""Samplers: the embedded JAX one, vLLM in this process, OpenAI-compatible servers. Each is imported when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.sampling.base import Sampler, SamplingParams, sample

__all__ = ["Sampler", "SamplingParams", "make_sampler", "sample"]


def make_sampler(
    config: SamplingConfig,
    folder: Path,
    how: SamplingParams,
    *,
    probes: Sequence[tuple[int, ...]] = (),
    others: Sequence[Path] = (),
    mesh: str,
    dtype: str,
    max_length: int,
    kept: Any = None,
) -> Sampler:
    """Makes the sampler that `config` names, for the Hugging Face folder `folder`.

    Prompt and completion have at most `max_length` tokens together. `mesh` is for the embedded sampler. A server is
    checked against the folder's model, computed in `dtype`, by its answers to the prompts `probes`; `others` are the
    folders that it might serve by mistake. The embedded sampler takes the model's weights from `kept`
    (`in_memory.Kept`, or None), where they are in memory already.
    """
    if config.sampler == "jax":
        from o1p_jax.sampling.engine import JaxSampler

        return JaxSampler.load(
            folder, how, mesh=mesh, dtype=dtype, slots=config.slots, max_length=max_length, kept=kept
        )
    if config.sampler == "vllm":
        from o1p_jax.sampling.vllm import VllmSampler

        return VllmSampler(folder, how, config.vllm, max_length=max_length, timeout_s=config.timeout_s)
    from o1p_jax.sampling.server import ServerSampler

    return ServerSampler(config, folder, how, dtype, probes, others)
