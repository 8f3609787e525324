import pytest

from o1p_jax.config.mesh import MESH_AXES, parse_mesh, pod_devices
from o1p_jax.runtime.errors import BadInput


def shape(**given):
    return {axis: given.get(axis, 1) for axis in MESH_AXES}


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        ("8x1", shape(fsdp=8)),
        ("4X2", shape(fsdp=4, tensor=2)),
        ("replica:2,fsdp:16,context:2,tensor:4,expert:1", shape(replica=2, fsdp=16, context=2, tensor=4)),
        ("tensor:4", shape(tensor=4)),
        ("fsdp:-1,tensor:4", shape(fsdp=8, tensor=4)),
        ("fsdp:-1,replica:32", shape(replica=32)),
        ("v5e-16", shape(fsdp=16)),
        ("v5p-64", shape(fsdp=32)),
        ("7x-8", shape(fsdp=8)),
        ("H100x64", shape(fsdp=64)),
        ("v5litepod-16", shape(fsdp=16)),
        ("tpu7x-8", shape(fsdp=8)),
        ("FSDP:4", shape(fsdp=4)),
    ],
)
def test_meshes(mesh, expected):
    assert parse_mesh(mesh, devices=32) == expected
    assert list(parse_mesh(mesh)) == list(MESH_AXES)


@pytest.mark.parametrize(
    "mesh",
    [
        "8",
        "8x",
        "0x1",
        "8x1x1",
        "axb",
        "",
        "-1x2",
        "8 x1",
        "data:8",
        "fsdp:2,fsdp:4",
        "fsdp:-1,tensor:-1",
        "fsdp:0",
        "fsdp:2,8",
        "v5p-1",
        "h100x0",
    ],
)
def test_bad_meshes(mesh):
    with pytest.raises(BadInput, match="mesh="):
        parse_mesh(mesh)


def test_the_rest_must_come_out_even():
    with pytest.raises(BadInput, match="3 does not divide the 8 devices there are"):
        parse_mesh("fsdp:-1,tensor:3", devices=8)


def test_names_of_pods():
    assert (pod_devices("v5p-8"), pod_devices("v6e-256"), pod_devices("a100x8")) == (4, 256, None)
