"""What helps a stage whose memory did not suffice: flags, the one that costs least first."""

from o1p_jax.config.tree import RunConfig, SamplingConfig


def of_sampling(sampling: SamplingConfig, mesh: str) -> list[str]:
    """Returns what lets the sampler get by with less of a device's memory; no samples that are there are lost by it."""
    if sampling.sampler == "vllm":
        cache, split = sampling.vllm.kv_cache_gib, sampling.vllm.tensor_parallel
        smaller = f"={cache / 2:g}" if cache else " (GiB, smaller than what vLLM takes by itself)"
        return [
            f"--sampling.vllm.kv_cache_gib{smaller}",
            f"--sampling.vllm.tensor_parallel={2 * split}, which splits the weights over more GPUs",
            "nothing else on these devices",
        ]
    if sampling.sampler == "server":
        return ["more memory for this process; the model's own lies with the server"]
    fewer = [f"--sampling.slots={sampling.slots // 2}"] if sampling.slots > 1 else []
    return [
        *fewer,
        f"another --mesh than {mesh}, with more devices along tensor, which share the weights",
        "--sampling.sampler=vllm (only in a new pool)",
    ]


def of_training(cfg: RunConfig, tokens: int, parts: int) -> list[str]:
    """Returns what lets training get by with less than microbatches of `tokens` tokens a device.

    `parts` devices hold a row together. All but the last are changes with which a run goes on from its checkpoint.
    """
    flags = []
    if cfg.compute.logprob_chunk > 128:
        flags.append("--compute.logprob_chunk=128")
    one_row = -(-cfg.batch.row_length // parts)
    if one_row < tokens:
        flags.append(f"--batch.tokens_per_device={max(one_row, tokens // 2)}")
    if cfg.compute.remat != "full":
        flags.append("--compute.remat=full")
    return [
        *flags,
        f"another --mesh than {cfg.mesh}: more devices along fsdp share weights and moments, along context the rows",
        f"--compute.trainable_layers below {cfg.compute.trainable_layers or 'all'} (with --restart=training)",
    ]


def of_export(mesh: str) -> list[str]:
    """Returns what lets the export get by with less."""
    return [f"another --mesh than {mesh}, with more devices along fsdp", "a host with more memory"]


def of_host(flag: str) -> list[str]:
    """Returns what helps a stage that computes on the host alone: the smaller `flag`, or more memory."""
    return [f"a smaller {flag}", "a host with more memory"]
