"""One table maps an array's logical axes onto the mesh's axes, and everything that is sharded is sharded by it."""

import math
from collections.abc import Collection, Mapping

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o1p_jax.config.mesh import MESH_AXES, parse_mesh
from o1p_jax.runtime.errors import BadInput

MeshAxes = str | tuple[str, ...] | None
"""The mesh axis, or the axes together, that a logical axis is split over; None means that it is not split."""
DATA_AXES = ("replica", "fsdp", "expert")
"""The mesh axes over which the rows of a batch are split."""
SAMPLING_AXES = (*DATA_AXES, "context")
"""The mesh axes over which the sampler's rows are split: a token at a time leaves no length to split over "context"."""
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
"""Logical axis -> mesh axis or axes; None is replicated.

Dense weights and rows treat the mesh axis "expert" as more of "fsdp"; along it each device holds experts of its own.
Along "replica" and "context" every device holds whole weights.
"""
SERVING_RULES = RULES | {"embed": None, "expert_embed": None, "batch": SAMPLING_AXES, "length": None}
"""The rules for sampling: every data-parallel device holds whole weights, so that no token waits for a gather."""


def partition(
    logical_axes: tuple[str | None, ...],
    rules: Mapping[str, MeshAxes] = RULES,
    mesh_axes: Collection[str] = MESH_AXES,
) -> PartitionSpec:
    """Returns the `PartitionSpec` over `mesh_axes` of an array with these logical axes.

    Raises `ValueError` for an unknown logical axis, and where one mesh axis would split two dimensions.
    """
    unknown = [a for a in logical_axes if a is not None and a not in rules]
    if unknown:
        raise ValueError(f"{logical_axes}: unknown logical axis {unknown[0]!r}; there are {sorted(rules)}")
    axes = [_names(None if a is None else rules[a]) for a in logical_axes]
    used = [name for names in axes for name in names]
    if len(used) != len(set(used)):
        raise ValueError(f"{logical_axes}: one mesh axis stands for two dimensions ({axes})")
    kept = [tuple(name for name in names if name in mesh_axes) for names in axes]
    return PartitionSpec(*(names if len(names) > 1 else names[0] if names else None for names in kept))


def sharding(mesh: Mesh, logical_axes: tuple[str | None, ...], rules: Mapping[str, MeshAxes] = RULES) -> NamedSharding:
    """Returns the sharding on `mesh` of an array with these logical axes; errors as `partition`."""
    return NamedSharding(mesh, partition(logical_axes, rules))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Tells the compiler where `x` lies, when a mesh is in use (`with jax.set_mesh(mesh)`).

    Without a mesh `x` is returned as it is, and so it is inside `jax.shard_map`, where each device has rows of its own.
    """
    if free_axes() != MESH_AXES:
        return x
    return jax.lax.with_sharding_constraint(x, partition(logical_axes))


def free_axes() -> tuple[str, ...]:
    """Returns the axes of the mesh in use that the compiler places: all but those of a surrounding `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in mesh.axis_names if axis not in mesh.manual_axes)


def check_divides(spec: str, sizes: Mapping[str, tuple[str, int]], devices: int = 1) -> None:
    """Raises `BadInput` when the mesh `spec` does not divide a dimension.

    `sizes` maps the name that a user knows (`num_attention_heads`) to (logical axis, size); `devices` is the number of
    devices that `parse_mesh` may fill.
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


def _names(axes: MeshAxes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else axes
