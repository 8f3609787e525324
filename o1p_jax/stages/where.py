"""Where a stage runs: here, or in a process of its own."""

import os
from dataclasses import asdict, replace
from typing import Any

import jax

from o1p_jax.config.text import from_dict, to_dict
from o1p_jax.config.tree import RunConfig, VllmConfig
from o1p_jax.devices import processes
from o1p_jax.devices.axes import check_divides
from o1p_jax.devices.mesh import make_mesh, simulate_devices
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.runtime.children import child_main, run_child, run_children
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.place import JobPlace
from o1p_jax.stages.presample import RolloutJob, presample
from o1p_jax.stages.train import train_and_export
from o1p_jax.stages.weigh import WeightReport


def sample(job: RolloutJob) -> None:
    if job.config.sampling.sampler == "vllm":
        folder = resolve_model(job.model, job.config.revision)  # the child's environment may lack JAX
        vllm = job.config.sampling.vllm
        run_children(
            "o1p_jax.stages.presample",
            to_dict(replace(job, folder=str(folder))),
            [_gpus(i, vllm) for i in range(vllm.replicas)],
            vllm.python,
        )
    else:
        presample(job)


def _gpus(replica: int, vllm: VllmConfig) -> dict[str, str]:
    """The variable that gives an engine GPUs of its own; where there is one engine, it sees what this process does."""
    if vllm.replicas == 1:
        return {}
    here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    seen = here.split(",") if here else [str(i) for i in range(vllm.replicas * vllm.tensor_parallel)]
    if len(seen) < vllm.replicas * vllm.tensor_parallel:
        raise BadInput(
            f"sampling.vllm.replicas={vllm.replicas}: x tensor_parallel={vllm.tensor_parallel} is more GPUs than the "
            f"{len(seen)} of CUDA_VISIBLE_DEVICES={here}"
        )
    first = replica * vllm.tensor_parallel
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[first : first + vllm.tensor_parallel])}


def outside_vllm(cfg: RunConfig, job: dict[str, Any]) -> None:
    """Does `job` here; in a process of its own where vLLM samples, so that the accelerator is free for vLLM."""
    if cfg.sampling.sampler == "vllm":
        place = processes.place_beside()
        run_child("o1p_jax.stages.where", job | {"place": place and asdict(place)})
    else:
        _do(job)


def _do(job: dict[str, Any]) -> None:
    simulate_devices(job["mesh"] if job["do"] == "mesh" else job["config"]["mesh"])
    if job["do"] == "mesh":
        make_mesh(job["mesh"])
        check_divides(job["mesh"], job["sizes"], len(jax.devices()))
    else:
        train_and_export(from_dict(RunConfig, job["config"]), WeightReport(**job["report"]))


def _do_with_others(job: dict[str, Any]) -> None:
    processes.start(JobPlace(**job["place"]) if job["place"] else None)
    _do(job)


if __name__ == "__main__":
    child_main(_do_with_others)
