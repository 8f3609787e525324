"""A process's place among the processes that do a job together, as flags, variables or the machine tell it."""

import glob
import importlib.util
import os
import re
from dataclasses import dataclass

from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.nodes import hostnames


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """A process's place in its job."""

    coordinator: str | None
    """HOST:PORT where process 0 listens; None where JAX asks the machine for the whole place, as on a TPU VM."""
    count: int = 0
    """Number of processes in the job; 0 where JAX asks the machine."""
    index: int = 0
    """This process's number, from 0."""
    local_device: int | None = None
    """Which of the GPUs that the process sees is its own; None means all of them."""


def find_place(argv: list[str]) -> tuple[JobPlace | None, list[str]]:
    """Returns the process's place in its job (None where the process is alone) and the arguments that are left.

    The place is looked for in the flags --coordinator=HOST:PORT --processes=N --process=I, then in
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, then in SLURM's variables, then in a TPU VM's;
    `--processes=1` looks no further. Raises `BadInput` for a flag or variable that is missing or malformed.
    """
    given: dict[str, str] = {}
    rest = []
    names = ("--coordinator", "--processes", "--process")
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in names:
            given[name] = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    if given.get("--processes") == "1":
        return None, rest
    if not given:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        given = {name: os.environ[name] for name in names if name in os.environ}
    if given:
        return _explicit(given, names), rest
    return _in_slurm(os.environ) or _on_tpu(os.environ), rest


def _explicit(given: dict[str, str], names: tuple[str, str, str]) -> JobPlace | None:
    """The place that three flags or variables of these `names` give."""
    if missing := [name for name in names if name not in given]:
        raise BadInput(f"{missing[0]}: missing; a job of several processes needs {', '.join(names)}")
    address, count, index = (given[name] for name in names)
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise BadInput(f"{names[0]}={address}: must be HOST:PORT of process 0, such as 10.0.0.1:8476")
    if not count.isdecimal() or int(count) < 1:
        raise BadInput(f"{names[1]}={count}: must be the number of processes")
    if not index.isdecimal() or int(index) >= int(count):
        raise BadInput(f"{names[2]}={index}: must be this process's number, 0 to {int(count) - 1}")
    return JobPlace(coordinator=address, count=int(count), index=int(index)) if int(count) > 1 else None


def _in_slurm(variables: os._Environ | dict[str, str]) -> JobPlace | None:
    """The place of a task that srun started; None outside of srun, and for a task that is alone."""
    try:
        count = int(variables.get("SLURM_STEP_NUM_TASKS") or variables["SLURM_NTASKS"])
        nodes, job, index = variables["SLURM_STEP_NODELIST"], variables["SLURM_JOB_ID"], variables["SLURM_PROCID"]
    except KeyError:
        return None
    if count == 1:
        return None
    several_here = int(variables.get("SLURM_NTASKS_PER_NODE", "0") or 0) > 1 or count > int(
        variables.get("SLURM_STEP_NUM_NODES", count)
    )
    sees_one = len(variables.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) == 1
    return JobPlace(
        coordinator=f"{hostnames(nodes)[0]}:{20000 + _number(job) % 20000}",
        count=count,
        index=int(index),
        local_device=int(variables["SLURM_LOCALID"]) if several_here and not sees_one else None,
    )


def _number(job: str) -> int:
    """Returns the number of a SLURM job; of a heterogeneous one (77+1), the number that its parts share."""
    match = re.match(r"\d+", job)
    if match is None:
        raise BadInput(f"SLURM_JOB_ID={job}: not a job's number; give --coordinator, --processes and --process")
    return int(match[0])


def first_platform(variables: os._Environ | dict[str, str]) -> str:
    """Returns the platform whose devices JAX takes as far as JAX_PLATFORMS says so (`tpu` of tpu,cpu), or nothing."""
    return variables.get("JAX_PLATFORMS", "").split(",")[0].strip().lower()


def several_tpu_hosts(variables: os._Environ | dict[str, str]) -> bool:
    """Returns whether the variables name several hosts of a TPU pod."""
    hosts = [variables.get(name, "") for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")]
    return any("," in names for names in hosts) or "MEGASCALE_COORDINATOR_ADDRESS" in variables


def _on_tpu(variables: os._Environ | dict[str, str]) -> JobPlace | None:
    """The place of one of several TPU hosts, which JAX finds out from variables (GKE) or the machine's metadata."""
    if first_platform(variables) not in ("", "tpu"):
        return None
    if several_tpu_hosts(variables):
        return JobPlace(coordinator=None)
    if "TPU_SKIP_MDS_QUERY" in variables:
        return None
    there = bool(glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")) and importlib.util.find_spec("libtpu")
    return JobPlace(coordinator=None) if there else None
