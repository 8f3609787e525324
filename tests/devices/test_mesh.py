import subprocess
import sys
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from o1p_jax.devices import mesh as module
from o1p_jax.devices.mesh import devices_for, gpus_of_job, laid_out, make_mesh
from o1p_jax.runtime.errors import BadInput

pytestmark = pytest.mark.core


def test_mesh_takes_the_first_devices(capsys):
    mesh = make_mesh("2x2")
    assert mesh.shape == {"replica": 1, "fsdp": 2, "expert": 1, "context": 1, "tensor": 2}
    assert mesh.devices.ravel().tolist() == jax.devices()[:4]
    assert capsys.readouterr().err == "mesh 2x2: 4 simulated devices on this CPU\n"


def test_too_few_devices_names_both_numbers():
    with pytest.raises(BadInput, match=r"mesh=16x1: needs 16 devices, there are 8 \(cpu\)"):
        make_mesh("16x1")


def test_devices_are_simulated():
    script = (
        "from o1p_jax.devices.mesh import make_mesh, set_up_devices\n"
        "set_up_devices('3x2'); print(make_mesh('3x2').size)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "6\n"


@dataclass(frozen=True)
class Chip:
    """A TPU's device, as far as JAX looks at it to lay a mesh over several slices of a pod."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    process_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5"


def slices(count: int, leave_out: int = 0) -> list[Chip]:
    """`count` slices of eight chips, 2x2x2, in an order that tells nothing."""
    chips = [
        Chip(8 * s + 4 * x + 2 * y + z, s, (x, y, z))
        for s in range(count) for x in range(2) for y in range(2) for z in range(2)
    ]  # fmt: skip
    return chips[::-1][leave_out:]


@pytest.mark.parametrize(
    ("shape", "count", "across"),
    [
        ((2, 8, 1, 1, 1), 2, (0,)),
        ((1, 16, 1, 1, 1), 2, (1,)),
        ((1, 4, 1, 1, 4), 2, (1,)),
        ((2, 8, 1, 2, 1), 4, (0, 1)),
    ],
)
def test_slices_lie_along_the_axes_that_send_least(shape, count, across):
    """Along every other axis all devices are of one slice, whose links are fast."""
    found = np.vectorize(lambda chip: chip.slice_index)(laid_out(slices(count), shape))
    assert found.shape == shape and sorted(np.unique(found)) == list(range(count))
    for axis in set(range(5)) - set(across):
        assert (found == found.take([0], axis)).all()
    if across == (1,):  # neighbours along the axis are of one slice, as far as that can be
        assert (np.diff(found, axis=1) >= 0).all()


def test_a_part_of_a_slice_is_refused():
    with pytest.raises(BadInput, match=r"12 devices are not as many of each of the 2 TPU slices \(4, 8\)"):
        laid_out(slices(2, leave_out=4), (1, 12, 1, 1, 1))


def test_one_of_several_processes_that_did_not_meet_does_not_go_on_alone(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(BadInput, match=r"one of 4 of its pod.*--coordinator"):
        devices_for("8x1")


@pytest.mark.parametrize(("platforms", "gpus"), [("cpu", None), ("tpu,cpu", None), ("cuda,cpu", 2), ("", 2)])
def test_gpus_are_counted_only_where_jax_would_take_them(monkeypatch, platforms, gpus):
    monkeypatch.setattr(module.os, "environ", {"JAX_PLATFORMS": platforms, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert gpus_of_job() == gpus
