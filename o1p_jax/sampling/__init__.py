"""Samplers: the embedded JAX one, vLLM in this process, OpenAI-compatible servers. Each is imported when asked for."""

from pathlib import Path

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.sampling.base import Sampler, SamplingParams

__all__ = ["Sampler", "SamplingParams", "make_sampler"]


def make_sampler(
    config: SamplingConfig, folder: Path, *, model: str, mesh: str, dtype: str, max_length: int
) -> Sampler:
    """Makes the sampler that `config` names, for the Hugging Face folder `folder`.

    Prompt and completion have at most `max_length` tokens together. `mesh` and `dtype` are for the embedded sampler;
    `model` is the name that a server is asked for where it holds several, whatever the folder.
    """
    if config.sampler == "jax":
        from o1p_jax.sampling.engine import JaxSampler

        return JaxSampler.load(folder, mesh=mesh, dtype=dtype, slots=config.slots)
    if config.sampler == "vllm":
        from o1p_jax.sampling.vllm import VllmSampler

        return VllmSampler(folder, config.vllm, max_length=max_length)
    from o1p_jax.sampling.server import ServerSampler

    return ServerSampler(config, model)
