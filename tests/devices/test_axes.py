import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from o1p_jax.config.mesh import MESH_AXES
from o1p_jax.devices.axes import RULES, SERVING_RULES, check_divides, constrain, partition, sharding
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.runtime.errors import BadInput

ROWS = ("fsdp", "expert")


def test_every_rule_names_a_mesh_axis():
    named = {*RULES.values()} - {None}
    assert set(SERVING_RULES) == set(RULES)
    assert named == {("replica", "fsdp", "expert"), ("fsdp", "expert"), "fsdp", "expert", "context", "tensor"}
    assert {axis for names in named for axis in ([names] if isinstance(names, str) else names)} == set(MESH_AXES)


def test_partition():
    assert partition(("layers", "embed", "heads", None)) == PartitionSpec(None, ROWS, "tensor", None)
    assert partition(("embed", "mlp"), SERVING_RULES) == PartitionSpec(None, "tensor")
    assert partition(("experts", "expert_embed", "mlp")) == PartitionSpec("expert", "fsdp", "tensor")
    assert partition(("batch", "heads"), mesh_axes=("fsdp", "tensor")) == PartitionSpec("fsdp", "tensor")
    with pytest.raises(ValueError, match="unknown logical axis 'embd'"):
        partition(("layers", "embd"))
    for axes in (("heads", "mlp"), ("experts", "embed")):
        with pytest.raises(ValueError, match="stands for two dimensions"):
            sharding(make_mesh("4x2"), axes)


def test_constrain_holds_under_a_mesh_only():
    x = jnp.zeros((8, 4))
    assert constrain(x, "batch", None) is x
    mesh = make_mesh("4x2")
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x, "batch", None))(x)
    assert y.sharding.is_equivalent_to(sharding(mesh, ("batch", None)), 2)


def test_dimensions_a_mesh_does_not_divide():
    sizes = {"num_attention_heads": ("heads", 12), "num_key_value_heads": ("kv_heads", 4), "rows": ("batch", 6)}
    check_divides("3x4", sizes)
    with pytest.raises(
        BadInput,
        match=re.escape("mesh=2x8: tensor = 8 does not divide num_attention_heads=12; these would: 1, 2, 4"),
    ):
        check_divides("2x8", sizes)
    with pytest.raises(BadInput, match=re.escape("mesh=4x1: fsdp = 4 does not divide rows=6")):
        check_divides("4x1", sizes)
    with pytest.raises(BadInput, match="fsdp x expert = 4 does not divide rows=6; these would: 1, 2, 3, 6"):
        check_divides("fsdp:2,expert:2", sizes)
    with pytest.raises(BadInput, match="expert = 4 does not divide num_experts=6"):
        check_divides("expert:4", {"num_experts": ("experts", 6)})
