"""Meshes and pods by name: how many devices, how they are joined, and what one of them can do."""

import math
import re
from dataclasses import dataclass

from o1p_jax.errors import BadInput

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator. Rates are a chip's peaks; JAX sees `devices` devices in it."""

    flops: float
    """bfloat16, multiply and add counted as two, a second."""
    memory: float
    """Bytes."""
    memory_bandwidth: float
    """Bytes a second."""
    link_bandwidth: float
    """Bytes a second in one direction: of one link of a torus, or of all of a GPU's NVLink."""
    torus: int = 0
    """Dimensions of the torus; 0 is a switch that joins the chips of a host."""
    network_bandwidth: float = 0.0
    """Bytes a second and chip in one direction between hosts; a torus is one."""
    devices: int = 1
    cores: int = 1
    """What names such as v5p-64 count."""
    usable: float = 1.0
    """Share of the memory that JAX takes; of a GPU's, XLA_PYTHON_CLIENT_MEM_FRACTION."""
    price: float | None = None
    """US dollars a chip and hour, on demand, where a list price is known."""


CHIPS = {
    "v5e": Chip(flops=197e12, memory=16 * GIB, memory_bandwidth=819e9, link_bandwidth=50e9, torus=2,
                price=1.2),
    "v5p": Chip(flops=459e12, memory=95 * GIB, memory_bandwidth=2765e9, link_bandwidth=100e9, torus=3,
                cores=2, price=4.2),
    "v6e": Chip(flops=918e12, memory=32 * GIB, memory_bandwidth=1638e9, link_bandwidth=100e9, torus=2,
                price=2.7),
    "7x": Chip(flops=2307e12, memory=192 * GIB, memory_bandwidth=7380e9, link_bandwidth=100e9, torus=3,
               devices=2, cores=2),
    "h100": Chip(flops=989e12, memory=80e9, memory_bandwidth=3350e9, link_bandwidth=450e9,
                 network_bandwidth=50e9, usable=0.75),
}  # fmt: skip
"""TPUs: docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e,tpu7x}, where a chip's links are summed over both directions; H100
SXM: NVIDIA's data sheet (dense), one 400 Gb/s adapter a GPU. Prices: cloud.google.com/tpu/pricing, on demand in the
US; others differ too much between sellers to stand here."""

_TPU_NAME = re.compile(r"(?:tpu)?(v5e|v5p|v6e|7x|v5litepod)-(\d+)")
_GPU_NAME = re.compile(r"(h100)x(\d+)")


def pod_devices(name: str) -> int | None:
    """The number of devices JAX sees in the pod `name`: 'v5e-16' (chips), 'v5p-64' (cores), 'h100x8' (GPUs)."""
    found = _TPU_NAME.fullmatch(name.lower()) or _GPU_NAME.fullmatch(name.lower())
    if found is None:
        return None
    chip, count = CHIPS[found[1].replace("litepod", "e")], int(found[2])
    return count // chip.cores * chip.devices or None


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A pod: a chip's name and the shape they are joined in; for GPUs hosts x GPUs a host."""

    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """'v5p:4x4x4' (chips of a torus) or 'h100:8x8' (hosts x GPUs a host); raises `BadInput`."""
        kind, _, shape = text.lower().partition(":")
        numbers = shape.split("x")
        wrong = kind not in CHIPS or not all(n.isascii() and n.isdigit() and int(n) >= 1 for n in numbers)
        if wrong or len(numbers) != (CHIPS[kind].torus or 2):
            shapes = ", ".join(f"{name}:{'x'.join('4' * (chip.torus or 2))}" for name, chip in CHIPS.items())
            raise BadInput(f"topology={text}: must be a chip and the shape of the pod, such as {shapes}")
        return cls(kind=kind, shape=tuple(map(int, numbers)))


MESH_AXES = ("replica", "fsdp", "expert", "context", "tensor")
"""Axes of every mesh, in the devices' order: neighbours share the last."""


def parse_mesh(mesh: str, devices: int = 1) -> dict[str, int]:
    """Devices along each of MESH_AXES; raises `BadInput`. One may be -1: what the others leave of `devices`.

    '8x1' is data (fsdp) by tensor; the long form 'fsdp:-1,tensor:4' names axes, and those left out are 1; the name of a
    pod, 'v5p-64' or 'h100x8', is all its devices along fsdp.
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
