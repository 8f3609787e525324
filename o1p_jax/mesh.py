"""Devices: "8x1" becomes a mesh with named axes, and one table maps the model's axes onto them.

All axes are in Auto mode: the compiler places intermediate results, and every array that lives longer than a step
(weights, moments, caches) is given its `NamedSharding` explicitly from `RULES`. "pjit" is `jax.jit` with shardings now.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from o1p_jax import processes
from o1p_jax.errors import BadInput
from o1p_jax.pods import MESH_AXES, parse_mesh
from o1p_jax.progress import say

MeshAxes = str | tuple[str, ...] | None

DATA_AXES = ("replica", "fsdp", "expert")
"""The mesh axes that share the rows of a batch out."""

SAMPLING_AXES = (*DATA_AXES, "context")
"""Those that share the sampler's rows out: a token at a time leaves no length to split."""

RULES: dict[str, MeshAxes] = {
    "batch": DATA_AXES,
    "length": "context",
    "activation": None,
    "layers": None,
    "embed": ("fsdp", "expert"),
    "norm": None,
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "router": None,
    "experts": "expert",
    "expert_embed": "fsdp",
}
"""Logical axis -> mesh axis or axes; None is replicated. Dense weights and rows treat the axis "expert" as more of
"fsdp"; along it each device holds experts of its own. Along "replica" and "context" all weights are whole."""

SERVING_RULES = RULES | {"embed": None, "expert_embed": None, "batch": SAMPLING_AXES, "length": None}
"""For sampling: weights whole on every data-parallel device, so that no token waits for them to be gathered."""


def simulate_devices(mesh: str) -> None:
    """Lets a CPU host show as many devices as `mesh` asks for, or this process's share of them.

    Call it before anything else uses JAX's backend.
    """
    devices = math.prod(parse_mesh(mesh, processes.count()).values())
    jax.config.update("jax_num_cpu_devices", max(1, devices // processes.count()))


def make_mesh(spec: str) -> Mesh:
    """The mesh of the first devices, as many as `spec` (see `parse_mesh`) asks for; too few raise `BadInput`.

    In a job of several processes it must ask for all of them.
    """
    devices = jax.devices()
    shape = tuple(parse_mesh(spec, len(devices)).values())
    needed = math.prod(shape)
    if len(devices) < needed:
        raise BadInput(
            f"mesh={spec}: needs {needed} devices, there are {len(devices)} ({devices[0].platform}); "
            f"ask for a smaller mesh, such as {len(devices)}x1"
        )
    if processes.count() > 1 and needed < len(devices):
        raise BadInput(
            f"mesh={spec}: {needed} devices leave some of the {len(devices)} of {processes.count()} processes out; "
            f"ask for all, such as {len(devices)}x1"
        )
    if devices[0].platform == "cpu" and needed > 1:
        say(f"mesh {spec}: {needed} simulated devices on this CPU")
    return mesh_of(devices[:needed], shape)


def local_mesh(spec: str) -> Mesh:
    """What one process has of `make_mesh(spec)`, for work that each does by itself: as much "tensor" as it can hold."""
    if processes.count() == 1:
        return make_mesh(spec)
    devices = jax.local_devices()
    tensor = math.gcd(parse_mesh(spec, len(jax.devices()))["tensor"], len(devices))
    shape = {"fsdp": len(devices) // tensor, "tensor": tensor}
    return mesh_of(devices, tuple(shape.get(axis, 1) for axis in MESH_AXES))


def mesh_of(devices: Sequence[jax.Device], shape: tuple[int, ...]) -> Mesh:
    """The devices with MESH_AXES; neighbours along an axis are neighbours on the torus, as far as that can be done."""
    placed = create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def devices_along(mesh: Mesh, axes: Iterable[str] = DATA_AXES) -> int:
    """The number of devices along these axes together; for DATA_AXES, what shares the rows of a batch out."""
    return math.prod(mesh.shape[axis] for axis in axes)


def partition(
    logical_axes: tuple[str | None, ...],
    rules: Mapping[str, MeshAxes] = RULES,
    mesh_axes: Collection[str] = MESH_AXES,
) -> PartitionSpec:
    """Logical axes as a `PartitionSpec` of `mesh_axes`; `ValueError` for an unknown name, a mesh axis used twice."""
    unknown = [a for a in logical_axes if a is not None and a not in rules]
    if unknown:
        raise ValueError(f"{logical_axes}: unknown logical axis {unknown[0]!r}; there are {sorted(rules)}")
    axes = [_names(None if a is None else rules[a]) for a in logical_axes]
    used = [name for names in axes for name in names]
    if len(used) != len(set(used)):
        raise ValueError(f"{logical_axes}: one mesh axis stands for two dimensions ({axes})")
    kept = [tuple(name for name in names if name in mesh_axes) for names in axes]
    return PartitionSpec(*(names if len(names) > 1 else names[0] if names else None for names in kept))


def _names(axes: MeshAxes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else axes


def sharding(mesh: Mesh, logical_axes: tuple[str | None, ...], rules: Mapping[str, MeshAxes] = RULES) -> NamedSharding:
    """Where an array with these logical axes lies on `mesh`; errors as `partition`."""
    return NamedSharding(mesh, partition(logical_axes, rules))


def free_axes() -> tuple[str, ...]:
    """The axes of the mesh in use (`with jax.set_mesh(mesh)`) that the compiler places: not those of a `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in mesh.axis_names if axis not in mesh.manual_axes)


def platform() -> str:
    """Where the program will run: of the mesh in use, which may be of devices that are not here; else of this host."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Tells the compiler where `x` lies, when a mesh is set (`with jax.set_mesh(mesh)`); alone it changes nothing.

    Nor does it inside `jax.shard_map`, where each device runs the model on rows of its own.
    """
    if free_axes() != MESH_AXES:
        return x
    return jax.lax.with_sharding_constraint(x, partition(logical_axes))


def check_divides(spec: str, sizes: Mapping[str, tuple[str, int]], devices: int = 1) -> None:
    """Raises `BadInput` when the mesh `spec` does not divide a dimension.

    `sizes` maps the name a user knows (`num_attention_heads`) to (logical axis, size); `devices` as for `parse_mesh`.
    """
    shape = parse_mesh(spec, devices)
    for name, (axis, size) in sizes.items():
        names = _names(RULES[axis])
        devices = math.prod(shape[mesh_axis] for mesh_axis in names)
        if size % devices:
            common = math.gcd(*(n for a, n in sizes.values() if RULES[a] == RULES[axis]))
            fits = ", ".join(str(d) for d in range(1, common + 1) if common % d == 0)
            which = " x ".join(n for n in names if shape[n] > 1)
            raise BadInput(f"mesh={spec}: {which} = {devices} does not divide {name}={size}; these would: {fits}")
