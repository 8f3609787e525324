"""One table maps the model's logical axes onto the mesh's, and everything that is sharded is sharded by it."""

import math
from collections.abc import Collection, Mapping

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o1p_jax.config.mesh import MESH_AXES, parse_mesh
from o1p_jax.runtime.errors import BadInput

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


def sharding(mesh: Mesh, logical_axes: tuple[str | None, ...], rules: Mapping[str, MeshAxes] = RULES) -> NamedSharding:
    """Where an array with these logical axes lies on `mesh`; errors as `partition`."""
    return NamedSharding(mesh, partition(logical_axes, rules))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Tells the compiler where `x` lies, when a mesh is set (`with jax.set_mesh(mesh)`); alone it changes nothing.

    Nor does it inside `jax.shard_map`, where each device runs the model on rows of its own.
    """
    if free_axes() != MESH_AXES:
        return x
    return jax.lax.with_sharding_constraint(x, partition(logical_axes))


def free_axes() -> tuple[str, ...]:
    """The axes of the mesh in use (`with jax.set_mesh(mesh)`) that the compiler places: not those of a `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in mesh.axis_names if axis not in mesh.manual_axes)


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


def _names(axes: MeshAxes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else axes
