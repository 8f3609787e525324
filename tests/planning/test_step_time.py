import pytest

from o1p_jax.config.chips import Topology
from o1p_jax.planning.hlo import Collective
from o1p_jax.planning.step_time import StepTime, link_seconds


@pytest.mark.parametrize(
    ("topology", "mesh", "axis", "rate"),
    [
        ("v5e:16x16", dict(fsdp=256, tensor=1), "fsdp", 200e9),  # both dimensions, two links each
        ("v5e:16x16", dict(fsdp=16, tensor=16), "tensor", 100e9),
        ("v5p:4x4x4", dict(fsdp=64, tensor=1), "fsdp", 600e9),
        ("h100:8x8", dict(fsdp=8, tensor=8), "tensor", 450e9),  # within a host
        ("h100:8x8", dict(fsdp=64, tensor=1), "fsdp", 450e9),  # eight adapters bring 457e9 a host
        ("h100:8x8", dict(fsdp=8, tensor=8), "fsdp", 50e9 * 8 / 7),  # each GPU by its own adapter
        ("h100:8x8", dict(replica=8, fsdp=4, tensor=2), "replica+tensor", 50e9 * 2 * 8 / 7),
    ],
)
def test_rates_of_links(topology, mesh, axis, rate):
    seconds = link_seconds(Topology.parse(topology), [Collective("all-gather", axis, 1, 10**9)], mesh)
    assert seconds[axis] == pytest.approx(1e9 / rate)


def test_the_slowest_bounds_the_step():
    found = StepTime(seconds={"compute": 2.0, "memory": 0.5, "links fsdp": 2.5}, model_flops=6.0, peak_flops=4.0)
    assert (found.step, found.bound, found.mfu, found.mfu_without_overlap) == (2.5, "links fsdp", 0.6, 0.3)
