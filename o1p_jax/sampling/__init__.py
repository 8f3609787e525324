"""Samplers: the embedded JAX one, vLLM in this process, OpenAI-compatible servers. Each is imported when asked for."""

from pathlib import Path

from o1p_jax.config.tree import RunConfig
from o1p_jax.sampling.base import Sampler, SamplingParams

__all__ = ["Sampler", "SamplingParams", "make_sampler"]


def make_sampler(kind: str, model_folder: Path, cfg: RunConfig, max_prompt_tokens: int) -> Sampler:
    """The sampler `kind` ('jax', 'vllm' or 'server') for the Hugging Face folder `model_folder`.

    Prompts up to `max_prompt_tokens` may be followed by as many tokens as the configuration allows, in sampling or
    in evaluation. A server is asked for the model that it serves, whatever the folder.
    """
    length = max_prompt_tokens + max(cfg.sampling.max_tokens, cfg.evaluation.max_tokens)
    if kind == "jax":
        from o1p_jax.sampling.engine import JaxSampler

        return JaxSampler.load(model_folder, mesh=cfg.mesh, dtype=cfg.compute.dtype, slots=cfg.sampling.slots)
    if kind == "vllm":
        from o1p_jax.sampling.vllm import VllmSampler

        return VllmSampler(model_folder, cfg.sampling.vllm, max_length=length)
    from o1p_jax.sampling.server import ServerSampler

    return ServerSampler(cfg.sampling, cfg.model)
