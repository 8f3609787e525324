"""A stage runs in this process, or in a process of its own, so that an accelerator is free for vLLM meanwhile, or so
that the embedded sampler has no more simulated devices than there are cores.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import RunConfig, SamplingConfig, VllmConfig
from o1p_jax.data.pool import Pool
from o1p_jax.devices import processes
from o1p_jax.devices.cpu import cores
from o1p_jax.devices.mesh import gpus_of_job
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.children import run_child, run_children
from o1p_jax.runtime.errors import BadInput, ProcessLost
from o1p_jax.sampling import in_memory, make_sampler
from o1p_jax.stages.presample import SampleJob, presample
from o1p_jax.stages.train import train_and_export

WORTH_A_PROCESS = 1 << 18
"""From so many tokens on that samples may have, a process of its own pays for the embedded sampler on a CPU."""


def apart(cfg: RunConfig) -> bool:
    """Returns whether stages run in processes of their own, at whose end an accelerator's memory is free again."""
    return "vllm" in (cfg.sampling.sampler, cfg.evaluation_sampler)


def sample(
    cfg: RunConfig, sampling: SamplingConfig, source: SourceModel, pools: Sequence[Pool], title: str,
    others: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Fills `pools` with solutions of the model `source`, in this process or in as many as vLLM has replicas.

    The embedded sampler takes weights that this process has kept (`sampling.in_memory`); all others that are kept give
    their memory up. `title` says to people what is sampled; `others` are folders of models that a server might serve by
    mistake.
    """
    if all(pool.complete for pool in pools):
        return
    job = SampleJob(
        title=title,
        pools=tuple(dict.fromkeys(str(pool.path) for pool in pools)),
        folder=str(source.folder),
        sampling=sampling,
        mesh=cfg.mesh,
        dtype=cfg.compute.dtype,
        others=tuple(map(str, others)),
    )
    here = sampling.sampler == "jax" and not (_crowded(cfg.mesh) and _tokens_asked(pools) >= WORTH_A_PROCESS)
    kept = in_memory.kept(source.digest if here else None, cfg.compute.dtype)
    if sampling.sampler == "vllm":
        run_children("o1p_jax.stages.presample", to_dict(job), engines(sampling.vllm), sampling.vllm.python)
    elif sampling.sampler == "server" and apart(cfg):
        run_child("o1p_jax.stages.presample", to_dict(job))
    elif sampling.sampler == "jax" and not here:
        run_child("o1p_jax.stages.presample", to_dict(replace(job, mesh=f"{cores()}x1")))
    else:
        presample(job, partial(make_sampler, kept=kept))


def _crowded(mesh: str) -> bool:
    """Whether this process alone shows more simulated devices than it has cores.

    Their threads wait for work by spinning: a sampler that shares its process with them takes 1.5 times as long.
    """
    alone = processes.count() == 1 and jax.default_backend() == "cpu"
    return alone and math.prod(parse_mesh(mesh, 1).values()) > cores()


def _tokens_asked(pools: Sequence[Pool]) -> int:
    """How many tokens all samples of the pools may have."""
    draws = [(pool.problems.read(["problem_id"]).num_rows, pool.facts["draw"]) for pool in pools]
    return sum(problems * draw["samples_per_problem"] * draw["max_tokens"] for problems, draw in draws)


def for_evaluation(cfg: RunConfig, *, base: bool) -> SamplingConfig:
    """Returns how a model is sampled when models are compared: the base by `sampling.servers`, others by their own."""
    if base or cfg.evaluation_sampler != "server":
        return replace(cfg.sampling, sampler=cfg.evaluation_sampler)
    own = cfg.evaluation
    return replace(cfg.sampling, sampler="server", servers=own.servers, served_model=own.served_model)


def check_servers(cfg: RunConfig, models: int) -> None:
    """Raises BadInput where so many `models` are to be compared by servers, and one of them has no servers."""
    if cfg.evaluation_sampler != "server":
        return
    if not cfg.sampling.servers:
        raise BadInput("sampling.servers: left out; evaluation.sampler=server asks those of the base model there")
    if models > 1 and not cfg.evaluation.servers:
        raise BadInput(
            "evaluation.servers: left out, and sampling.servers serve the base model alone; name the servers that will "
            "serve the model that is compared with it (docs/serving.md), or set evaluation.sampler=jax or vllm"
        )


def train(cfg: RunConfig, source: SourceModel) -> None:
    """Trains and exports in this process, or in a new one, which joins the new ones of the job's other processes."""
    if not apart(cfg):
        return train_and_export(cfg, source)
    place = processes.place_beside()
    job: dict[str, Any] = {"config": to_dict(cfg), "source": source.to_json(), "place": place and asdict(place)}
    run_child("o1p_jax.stages.train", job, died=ProcessLost)


def engines(vllm: VllmConfig) -> list[dict[str, str]]:
    """Returns, for each engine on this host, the variables that give it GPUs of its own; a single engine needs none.

    Raises BadInput where there are fewer GPUs than the engines take.
    """
    gpus = (gpus_of_job() or 0) // processes.count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = visible.split(",") if visible else [str(i) for i in range(gpus)]
    replicas = vllm.replicas or max(1, gpus // vllm.tensor_parallel)
    if gpus and gpus < replicas * vllm.tensor_parallel:
        raise BadInput(
            f"sampling.vllm.tensor_parallel={vllm.tensor_parallel}: x {replicas} replicas is more GPUs than the {gpus} "
            "that this host shows"
        )
    if replicas == 1 or not gpus:
        return [{}] * replicas
    parts = [seen[i * vllm.tensor_parallel : (i + 1) * vllm.tensor_parallel] for i in range(replicas)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
