"""The mesh of the job's devices: "8x1" becomes a mesh with named axes.

All axes are in Auto mode: the compiler places intermediate results, and every array that lives longer than a step
(weights, moments, caches) is given its `NamedSharding` explicitly, from the rules in axes.py.
"""

import glob
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh

from o1p_jax.config.mesh import MESH_AXES, parse_mesh
from o1p_jax.devices import processes
from o1p_jax.devices.axes import DATA_AXES
from o1p_jax.devices.compiled import keep_compiled
from o1p_jax.devices.cpu import compile_short_loops_as_vectors, keep_memory
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.place import first_platform
from o1p_jax.runtime.progress import say


def set_up_devices(mesh: str) -> None:
    """Lets a CPU host show as many devices as `mesh` asks for, or this process's share of them; keeps what is compiled,
    and sets how it is compiled for a CPU.

    The function must be called before anything else uses JAX's backend.
    """
    keep_compiled()
    compile_short_loops_as_vectors()
    devices = math.prod(parse_mesh(mesh, processes.count()).values())
    jax.config.update("jax_num_cpu_devices", max(1, devices // processes.count()))


def make_mesh(spec: str) -> Mesh:
    """Returns the mesh of the first devices, as many as `spec` (see `parse_mesh`) asks for.

    Raises `BadInput` where there are too few devices, and in a job of several processes where the mesh leaves devices
    out.
    """
    devices = jax.devices()
    shape = check_mesh(spec, len(devices), devices[0].platform)
    needed = math.prod(shape)
    if devices[0].platform == "cpu":
        keep_memory()
        if needed > 1:
            say(f"mesh {spec}: {needed} simulated devices on this CPU")
    return mesh_of(devices[:needed], shape)


def check_mesh(spec: str, devices: int, platform: str) -> tuple[int, ...]:
    """The shape of the mesh `spec` where there are so many `devices`; `BadInput` where it asks for too many, or, in a
    job of several processes, leaves some out.
    """
    shape = tuple(parse_mesh(spec, devices).values())
    needed = math.prod(shape)
    if devices < needed:
        raise BadInput(
            f"mesh={spec}: needs {needed} devices, there are {devices} ({platform}); "
            f"ask for a smaller mesh, such as {devices}x1"
        )
    if processes.count() > 1 and needed < devices:
        raise BadInput(
            f"mesh={spec}: {needed} devices leave some of the {devices} of {processes.count()} processes out; "
            f"ask for all, such as {devices}x1"
        )
    return shape


def devices_for(spec: str) -> int:
    """Returns the number of devices that JAX sees; raises `BadInput` where the mesh `spec` does not suit them."""
    devices = jax.devices()
    if jax.process_count() != processes.count():  # a TPU tells of its pod's hosts by itself
        raise BadInput(
            f"this process is one of {jax.process_count()} of its pod, and they did not find each other; start it on "
            "all hosts with --coordinator=HOST:PORT --processes=N --process=I (docs/processes.md)"
        )
    check_mesh(spec, len(devices), devices[0].platform)
    return len(devices)


def gpus_of_job() -> int | None:
    """The GPUs of all processes together, counted without JAX, which would take their memory.

    None where there are none that can be counted: a CPU's devices are simulated, a TPU's known to JAX alone.
    """
    if first_platform(os.environ) in ("cpu", "tpu"):
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = len(glob.glob("/dev/nvidia[0-9]*")) if visible is None else len(list(filter(None, visible.split(","))))
    return seen * processes.count() or None


def local_mesh(spec: str) -> Mesh:
    """Returns the mesh of one process's part of `make_mesh(spec)`, for work that each process does by itself.

    Its axis "tensor" is as long as the process's devices allow; the rest is "fsdp".
    """
    if processes.count() == 1:
        return make_mesh(spec)
    devices = jax.local_devices()
    tensor = math.gcd(parse_mesh(spec, len(jax.devices()))["tensor"], len(devices))
    shape = {"fsdp": len(devices) // tensor, "tensor": tensor}
    return mesh_of(devices, tuple(shape.get(axis, 1) for axis in MESH_AXES))


def mesh_of(devices: Sequence[jax.Device], shape: tuple[int, ...]) -> Mesh:
    """Returns a mesh of these devices with MESH_AXES, of the given shape; see `laid_out`."""
    return Mesh(laid_out(devices, shape), MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def laid_out(devices: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Returns the devices as an array of the given shape.

    Neighbours along an axis are neighbours on the torus, as far as that can be done. Where the devices are of several
    TPU slices, the slices lie along the first axes, those with the least to send. Raises `BadInput` where the devices
    are not as many of each slice.
    """
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1 or devices[0].platform != "tpu":
        return create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if len(set(slices.values())) > 1:
        raise BadInput(
            f"mesh: {len(devices)} devices are not as many of each of the {len(slices)} TPU slices "
            f"({', '.join(map(str, slices.values()))}); ask for all devices, such as fsdp:-1"
        )
    left, between = len(slices), []
    for size in shape:
        between.append(math.gcd(size, left))
        left //= between[-1]
    within = tuple(size // count for size, count in zip(shape, between, strict=True))
    return create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)


def devices_along(mesh: Mesh, axes: Iterable[str] = DATA_AXES) -> int:
    """Returns the number of devices along these axes together; a batch's rows are split over those along DATA_AXES."""
    return math.prod(mesh.shape[axis] for axis in axes)


def platform() -> str:
    """Returns the platform that the program is compiled for.

    It is that of the mesh in use, whose devices may belong to another machine; without a mesh it is this host's.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def card() -> str:
    """Returns the kind of the devices that the program is compiled for, as JAX names it; see `platform`."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind
