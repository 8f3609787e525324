import dataclasses

import pytest

from o1p_jax.config.chips import Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import BatchConfig, ComputeConfig, RunConfig
from o1p_jax.planning.sweep import candidates

LONG = RunConfig(
    model="Qwen/QwQ-32B",
    compute=ComputeConfig(remat="full"),
    batch=BatchConfig(sequences=32, row_length=8192, too_long="drop"),
)


def test_candidates_fill_the_pod_and_its_memory_and_leave_no_row_empty():
    pod = Topology.parse("v5p:4x4x4")
    found = candidates(LONG, pod)
    assert found and [c.seconds for c in found] == sorted(c.seconds for c in found)
    for c in found:
        shape = parse_mesh(c.config.mesh)
        assert shape["fsdp"] * shape["expert"] * shape["context"] * shape["tensor"] == 64
        assert shape["fsdp"] * shape["expert"] <= 32
    assert {parse_mesh(c.config.mesh)["expert"] for c in found} == {1}


def test_small_chips_need_full_rematerialisation():
    found = candidates(
        dataclasses.replace(LONG, batch=BatchConfig(sequences=64, row_length=8192, too_long="drop")),
        Topology.parse("v5e:8x8"),
    )
    assert {c.config.compute.remat for c in found} == {"full"}


def test_rows_that_few_samples_cannot_fill_are_split_along_context():
    """32 samples fill 4 to 16 rows of the longest one's length, and 32 devices only together."""
    best = parse_mesh(candidates(LONG, Topology.parse("v5p:2x4x4"))[0].config.mesh)
    assert best["context"] * best["tensor"] > 1


def test_experts_get_an_axis():
    mixture = dataclasses.replace(LONG, model="Qwen/Qwen3-30B-A3B")
    assert {parse_mesh(c.config.mesh)["expert"] for c in candidates(mixture, Topology.parse("h100:4x8"))} > {1, 8}


@pytest.mark.parametrize("pod", ["v5e:1x1", "h100:1x1"])
def test_what_never_fits_has_no_candidates(pod):
    assert candidates(LONG, Topology.parse(pod)) == []
