"""A process's place in its job, as flags, SLURM or a TPU host tell it."""

import pytest

from o1p_jax.runtime import nodes
from o1p_jax.runtime import place as module
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.place import JobPlace, find_place

SLURM = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "0",
         "SLURM_STEP_NODELIST": "node[003-010]", "SLURM_STEP_NUM_NODES": "8"}  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Nothing of the machine that the tests run on."""
    monkeypatch.setattr(module.os, "environ", {})
    monkeypatch.setattr(module.glob, "glob", lambda _: [])
    monkeypatch.setattr(nodes.shutil, "which", lambda _: None)


def test_alone_where_nothing_says_otherwise(monkeypatch):
    assert find_place(["--mesh=8x1"]) == (None, ["--mesh=8x1"])
    monkeypatch.setattr(module.os, "environ", SLURM)
    assert find_place(["--processes=1", "--mesh=8x1"]) == (None, ["--mesh=8x1"])


def test_flags_come_before_variables(monkeypatch):
    variables = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    monkeypatch.setattr(module.os, "environ", SLURM | variables)
    assert find_place([])[0] == JobPlace(coordinator="a:1", count=2, index=1)
    place, rest = find_place(["--coordinator=b:2", "--mesh=8x1", "--processes=4", "--process=3"])
    assert place == JobPlace(coordinator="b:2", count=4, index=3) and rest == ["--mesh=8x1"]
    spaced = ["--coordinator", "b:2", "--mesh", "8x1", "--processes", "4", "--process", "3"]
    assert find_place(spaced) == (place, ["--mesh", "8x1"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--coordinator=a:1"], "--processes: missing"),
        (["--coordinator=a", "--processes=2", "--process=0"], "--coordinator=a: must be HOST:PORT"),
        (["--coordinator=a:1", "--processes=two", "--process=0"], "--processes=two: must be the number"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], "--process=2: must be .* 0 to 1"),
        (["--coordinator=a:1", "--processes=2", "--process=-1"], "--process=-1: must be .* 0 to 1"),
    ],
)
def test_a_bad_place_is_refused(argv, message):
    with pytest.raises(BadInput, match=message):
        find_place(argv)


@pytest.mark.parametrize(
    ("changes", "coordinator", "local_device"),
    [
        ({}, "node003:24711", None),
        ({"SLURM_STEP_NODELIST": "gpu1"}, "gpu1:24711", None),
        ({"SLURM_STEP_NODELIST": "gpu1,gpu2"}, "gpu1:24711", None),
        ({"SLURM_STEP_NODELIST": "c[7,9-12],d1"}, "c7:24711", None),
        ({"SLURM_STEP_NODELIST": "node[1-2]-ib"}, "node1-ib:24711", None),
        ({"SLURM_JOB_ID": "77+1"}, "node003:20077", None),
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3"}, "node003:24711", 3),  # four tasks a node share its GPUs
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "3"}, "node003:24711", None),
    ],
)
def test_slurm(monkeypatch, changes, coordinator, local_device):
    monkeypatch.setattr(module.os, "environ", SLURM | changes)
    assert find_place([])[0] == JobPlace(coordinator=coordinator, count=8, index=3, local_device=local_device)


def test_one_task_of_an_array_or_a_shell_in_an_allocation_is_alone(monkeypatch):
    for changes in ({"SLURM_NTASKS": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        monkeypatch.setattr(module.os, "environ", SLURM | changes)
        assert find_place([])[0] is None
    monkeypatch.setattr(module.os, "environ", {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"})  # not under srun
    assert find_place([])[0] is None


@pytest.mark.parametrize("platforms", ["tpu", "tpu,cpu", "TPU, cpu", ""])
def test_a_tpu_beside_other_platforms_is_a_tpu(monkeypatch, platforms):
    monkeypatch.setattr(module.os, "environ", {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": platforms})
    assert find_place([])[0] == JobPlace(coordinator=None)


@pytest.mark.parametrize("platforms", ["cpu", "cuda,cpu", "cpu,tpu"])
def test_a_process_that_computes_elsewhere_is_alone_on_a_tpu_host(monkeypatch, platforms):
    monkeypatch.setattr(module.os, "environ", {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": platforms})
    assert find_place([])[0] is None


def test_a_tpu_host_asks_jax(monkeypatch):
    monkeypatch.setattr(module.os, "environ", {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"})
    assert find_place([])[0] == JobPlace(coordinator=None)
    variables = {"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_SKIP_MDS_QUERY": "true"}  # as on GKE
    monkeypatch.setattr(module.os, "environ", variables)
    assert find_place([])[0] == JobPlace(coordinator=None)
    monkeypatch.setattr(module.os, "environ", {})
    monkeypatch.setattr(module.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert find_place([])[0] is None  # another device's driver
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert find_place([])[0] == JobPlace(coordinator=None)
    monkeypatch.setattr(module.os, "environ", {"JAX_PLATFORMS": "cpu"})
    assert find_place([])[0] is None
