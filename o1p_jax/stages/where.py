"""A stage runs in this process, or in a process of its own, so that an accelerator is free for vLLM meanwhile."""

import os
from dataclasses import asdict
from typing import Any

from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import RunConfig, SamplingConfig, VllmConfig
from o1p_jax.data.pool import Pool
from o1p_jax.devices import processes
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.children import run_child, run_children
from o1p_jax.runtime.errors import BadInput, ProcessLost
from o1p_jax.stages.presample import SampleJob, presample
from o1p_jax.stages.train import train_and_export


def apart(sampling: SamplingConfig) -> bool:
    """Returns whether stages run in processes of their own, at whose end an accelerator's memory is free again."""
    return sampling.sampler == "vllm"


def sample(cfg: RunConfig, source: SourceModel, pool: Pool, title: str) -> None:
    """Fills `pool` with solutions of the model `source`, in this process or in as many as vLLM has replicas.

    `title` says to people what is sampled.
    """
    if pool.complete:
        return
    job = SampleJob(
        title=title,
        pool=str(pool.path),
        folder=str(source.folder),
        sampling=cfg.sampling,
        mesh=cfg.mesh,
        dtype=cfg.compute.dtype,
    )
    if not apart(job.sampling):
        return presample(job)
    vllm = job.sampling.vllm
    run_children("o1p_jax.stages.presample", to_dict(job), [_gpus(i, vllm) for i in range(vllm.replicas)], vllm.python)


def train(cfg: RunConfig, source: SourceModel) -> None:
    """Trains and exports in this process, or in a new one, which joins the new ones of the job's other processes."""
    if not apart(cfg.sampling):
        return train_and_export(cfg, source)
    place = processes.place_beside()
    job: dict[str, Any] = {"config": to_dict(cfg), "source": source.to_json(), "place": place and asdict(place)}
    run_child("o1p_jax.stages.train", job, died=ProcessLost)


def _gpus(replica: int, vllm: VllmConfig) -> dict[str, str]:
    """Returns the variable that gives an engine GPUs of its own; a single engine needs none."""
    if vllm.replicas == 1:
        return {}
    seen_here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    seen = seen_here.split(",") if seen_here else [str(i) for i in range(vllm.replicas * vllm.tensor_parallel)]
    if len(seen) < vllm.replicas * vllm.tensor_parallel:
        raise BadInput(
            f"sampling.vllm.replicas={vllm.replicas}: x tensor_parallel={vllm.tensor_parallel} is more GPUs than the "
            f"{len(seen)} of CUDA_VISIBLE_DEVICES={seen_here}"
        )
    first = replica * vllm.tensor_parallel
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[first : first + vllm.tensor_parallel])}
