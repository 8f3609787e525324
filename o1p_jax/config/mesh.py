"""The grammar of meshes: a mesh is devices along named axes, or all devices of a pod."""

import math
import re
from collections.abc import Mapping

from o1p_jax.config.chips import CHIPS
from o1p_jax.runtime.errors import BadInput

_TPU_NAME = re.compile(r"(?:tpu)?(v5e|v5p|v6e|7x|v5litepod)-(\d+)")


_GPU_NAME = re.compile(r"(h100)x(\d+)")


def pod_devices(name: str) -> int | None:
    """Returns the number of devices that JAX sees in the pod `name`; None where `name` is not a pod's.

    The number in a name counts chips ('v5e-16'), cores ('v5p-64') or GPUs ('h100x8').
    """
    found = _TPU_NAME.fullmatch(name.lower()) or _GPU_NAME.fullmatch(name.lower())
    if found is None:
        return None
    chip, count = CHIPS[found[1].replace("litepod", "e")], int(found[2])
    return count // chip.cores * chip.devices or None


MESH_AXES = ("replica", "fsdp", "expert", "context", "tensor")
"""The axes of every mesh, in the devices' order: neighbouring devices lie along the last axis."""


def mesh_text(shape: Mapping[str, int]) -> str:
    """Returns the mesh in its long form, without axes of one device: 'fsdp:16,tensor:4'."""
    return ",".join(f"{axis}:{n}" for axis, n in shape.items() if n > 1) or "1x1"


def parse_mesh(mesh: str, devices: int = 1) -> dict[str, int]:
    """Returns the number of devices along each of MESH_AXES. Raises `BadInput` for a text that names no mesh.

    '8x1' is data (fsdp) by tensor. The long form 'fsdp:-1,tensor:4' names axes: an axis that is left out has 1 device,
    and an axis with -1 has what the other axes leave of `devices`. The name of a pod, 'v5p-64' or 'h100x8', stands for
    all devices of the pod along fsdp.
    """
    if of_pod := pod_devices(mesh):
        mesh = f"fsdp:{of_pod}"
    mesh = mesh.lower()
    data, _, tensor = mesh.partition("x")
    pairs = [part.split(":") for part in mesh.split(",")] if ":" in mesh else [["fsdp", data], ["tensor", tensor]]
    shape = dict(pair for pair in pairs if len(pair) == 2)
    positive = [n for n in shape.values() if n.isascii() and n.isdigit() and int(n) >= 1]
    rest = [n for n in shape.values() if n == "-1" and ":" in mesh]
    complete = len(positive) + len(rest) == len(pairs) and len(rest) <= 1
    if len(shape) < len(pairs) or not set(shape) <= set(MESH_AXES) or not complete:
        raise BadInput(
            f"mesh={mesh}: must be two positive numbers, DATAxTENSOR, such as 8x1, or numbers for some of "
            f"{', '.join(MESH_AXES)} (-1 is the rest), such as fsdp:-1,tensor:4, or a pod such as v5p-64 or h100x8"
        )
    others = math.prod(map(int, positive))
    if rest and devices > 1 and devices % others:
        raise BadInput(f"mesh={mesh}: {others} does not divide the {devices} devices there are; -1 can't be filled in")
    filled = max(1, devices // others)
    return {axis: filled if shape.get(axis) == "-1" else int(shape.get(axis, 1)) for axis in MESH_AXES}
