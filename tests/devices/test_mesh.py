import subprocess
import sys

import jax
import pytest

from o1p_jax.devices.mesh import make_mesh
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
        "from o1p_jax.devices.mesh import make_mesh, simulate_devices\n"
        "simulate_devices('3x2'); print(make_mesh('3x2').size)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "6\n"
