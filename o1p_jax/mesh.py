"""Devices: "8x1" becomes a mesh with the axes "fsdp" and "tensor", and one table maps the model's axes onto them.

All axes are in Auto mode: the compiler places intermediate results, and every array that lives longer than a step
(weights, moments, caches) is given its `NamedSharding` explicitly from `RULES`. "pjit" is `jax.jit` with shardings now.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from o1p_jax.config import parse_mesh
from o1p_jax.errors import BadInput
from o1p_jax.progress import say

RULES: dict[str, str | None] = {
    "batch": "fsdp",
    "length": None,
    "activation": None,
    "layers": None,
    "embed": "fsdp",
    "norm": None,
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
}
"""Logical axis -> mesh axis; None is replicated."""

SERVING_RULES = RULES | {"embed": None}
"""For sampling: weights whole on every data-parallel device, so that no token waits for them to be gathered."""


def simulate_devices(mesh: str) -> None:
    """Lets a CPU host show as many devices as `mesh` asks for. Call it before anything else uses JAX's backend."""
    jax.config.update("jax_num_cpu_devices", math.prod(parse_mesh(mesh)))


def make_mesh(spec: str) -> Mesh:
    """The mesh of the first devices, as many as `spec` ("DATAxTENSOR") asks for; too few raise `BadInput`."""
    shape = parse_mesh(spec)
    needed, devices = math.prod(shape), jax.devices()
    if len(devices) < needed:
        raise BadInput(
            f"mesh={spec}: needs {needed} devices, there are {len(devices)} ({devices[0].platform}); "
            f"ask for a smaller mesh, such as {len(devices)}x1"
        )
    if devices[0].platform == "cpu" and needed > 1:
        say(f"mesh {spec}: {needed} simulated devices on this CPU")
    return Mesh(np.asarray(devices[:needed]).reshape(shape), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)


def partition(logical_axes: tuple[str | None, ...], rules: Mapping[str, str | None] = RULES) -> PartitionSpec:
    """Logical axes as a `PartitionSpec`; an unknown name and a mesh axis used twice raise `ValueError`."""
    unknown = [a for a in logical_axes if a is not None and a not in rules]
    if unknown:
        raise ValueError(f"{logical_axes}: unknown logical axis {unknown[0]!r}; there are {sorted(rules)}")
    axes = [None if a is None else rules[a] for a in logical_axes]
    used = [a for a in axes if a is not None]
    if len(used) != len(set(used)):
        raise ValueError(f"{logical_axes}: one mesh axis stands for two dimensions ({axes})")
    return PartitionSpec(*axes)


def sharding(
    mesh: Mesh, logical_axes: tuple[str | None, ...], rules: Mapping[str, str | None] = RULES
) -> NamedSharding:
    """Where an array with these logical axes lies on `mesh`; errors as `partition`."""
    return NamedSharding(mesh, partition(logical_axes, rules))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Tells the compiler where `x` lies, when a mesh is set (`with jax.set_mesh(mesh)`); alone it changes nothing.

    Nor does it inside `jax.shard_map`, where each device runs the model on rows of its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return x
    return jax.lax.with_sharding_constraint(x, partition(logical_axes))


def check_divides(spec: str, sizes: Mapping[str, tuple[str, int]]) -> None:
    """Raises `BadInput` when the mesh `spec` does not divide a dimension.

    `sizes` maps the name a user knows (`num_attention_heads`) to (logical axis, size).
    """
    shape = dict(zip(("fsdp", "tensor"), parse_mesh(spec), strict=True))
    for name, (axis, size) in sizes.items():
        mesh_axis = RULES[axis]
        if mesh_axis is not None and size % shape[mesh_axis]:
            common = math.gcd(*(n for a, n in sizes.values() if RULES[a] == mesh_axis))
            fits = ", ".join(str(d) for d in range(1, common + 1) if common % d == 0)
            which = "first" if mesh_axis == "fsdp" else "second"
            raise BadInput(
                f"mesh={spec}: its {which} number, {shape[mesh_axis]}, does not divide {name}={size}; "
                f"these would: {fits}"
            )
