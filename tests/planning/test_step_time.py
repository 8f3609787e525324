import pytest

from o1p_jax.config.chips import CHIPS, Topology
from o1p_jax.planning.hlo import Collective
from o1p_jax.planning.roofline import Operations
from o1p_jax.planning.step_time import StepTime, link_seconds, step_time

MESH = dict(replica=1, fsdp=8, expert=1, context=1, tensor=1)


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


def test_the_slowest_bounds_the_step_and_the_forecast_adds_up():
    found = StepTime(
        seconds={"compute": 2.0, "memory": 0.5, "links fsdp": 2.5}, parts={"products": 3.0, "links": 1.0},
        model_flops=6.0, peak_flops=4.0,
    )  # fmt: skip
    assert (found.least, found.bound, found.most_mfu) == (2.5, "links fsdp", 0.6)
    assert (found.forecast, found.mfu) == (4.0, 0.375)


def test_a_forecast_is_never_faster_than_the_links():
    found = StepTime(seconds={"links fsdp": 2.5}, parts={"links": 1.0}, model_flops=6.0, peak_flops=4.0)
    assert found.forecast == 2.5


def h100(**work):
    return step_time(
        Topology.parse("h100:1x8"), MESH, operations=Operations(8 * 989e12, 8e12), model_flops=1.0, moved=3350e9,
        sent=[Collective("all-gather", "fsdp", 1, 45 * 10**10)], **work,
    )  # fmt: skip


def test_the_parts_of_a_forecast():
    chip, found = CHIPS["h100"], h100()
    assert found.seconds == pytest.approx({"compute": 1 + 1 / 989, "memory": 1.0, "links fsdp": 1.0})
    attention = 1 / 989 / chip.attention_share
    assert found.parts == pytest.approx(
        {"products": 1 / chip.product_share, "attention": attention, "memory": 1.0, "links": 1 / 3, "launches": 0.0}
    )
    assert h100(slowest=1.5).parts["attention"] == pytest.approx(1.5 * attention)
    assert h100(float32=True).parts["products"] == pytest.approx(989 / 67 / chip.product_share)


def test_launches_show_where_they_take_longer_than_their_kernels():
    attention = h100().parts["attention"]
    assert h100(launches=10).parts["launches"] == 0
    assert h100(launches=10**6).parts["launches"] == pytest.approx(3.3 - attention)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_shares_are_shares(chip):
    assert 0 < chip.attention_share < chip.product_share < 1 and 0 < chip.float32_share < 1
