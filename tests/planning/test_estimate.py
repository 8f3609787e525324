import dataclasses
from types import SimpleNamespace

import pytest

from o1p_jax.config.chips import Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import BatchConfig, ComputeConfig, RunConfig
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.compile import model_config
from o1p_jax.planning.estimate import formula_time, mean_length, planned_time, slowest_part, uneven
from o1p_jax.planning.hlo import OpenLoop
from o1p_jax.planning.roofline import sent_bytes
from o1p_jax.training.packing import make_steps
from o1p_jax.training.shapes import Room

CFG = RunConfig(
    model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    compute=ComputeConfig(dtype="bfloat16", remat="full"),
    batch=BatchConfig(sequences=8, row_length=8192, too_long="drop"),
)
MODEL = model_config(CFG)
MESH = parse_mesh("fsdp:8")


def planned(topology, lengths=(8192,) * 8, loops=(), cfg=CFG):
    steps = make_steps(list(lengths), cfg.batch, 1, 0, Room(devices=8, parts=1, tokens=8192, row_length=8192))
    sent = sent_bytes(MODEL, 8192, 1, MESH, cfg.compute)
    state = 12 * model_sizes(MODEL).total / 8
    return planned_time(
        cfg, MODEL, Topology.parse(topology), MESH, steps, sent=sent, device_state=state, loops=loops
    )  # fmt: skip


@pytest.mark.parametrize("topology", ["h100:1x8", "v5p:2x2x2"])
def test_a_planned_step_and_the_formula_agree_where_rows_are_full(topology):
    by_formula = formula_time(CFG.compute, MODEL, Topology.parse(topology), MESH, slots=8 * 8192, span=8192)
    found = planned(topology)
    assert found.parts == pytest.approx(by_formula.parts) and found.seconds == pytest.approx(by_formula.seconds)
    assert found.mfu == pytest.approx(by_formula.mfu) and 0.3 < found.mfu < found.most_mfu < 0.8


def test_all_devices_wait_for_the_one_with_the_longest_text():
    packed, lengths = [[[[[0], [1, 2]]]]], [8192, 4096, 4096]
    steps = SimpleNamespace(packed=packed, lengths=lengths, packer=SimpleNamespace(devices=2))
    assert uneven(steps) == pytest.approx(4 / 3)


def test_empty_slots_cost_products():
    full, half = planned("h100:1x8"), planned("h100:1x8", (8192,) * 4)
    assert half.parts["products"] == pytest.approx(full.parts["products"])
    assert half.parts["attention"] == pytest.approx(full.parts["attention"])  # of the devices that have some
    assert half.mfu < 0.6 * full.mfu
    assert planned("v5p:2x2x2", (8192,) * 4).parts["attention"] == planned("v5p:2x2x2").parts["attention"]


def test_loops_over_tiles_show_on_gpus():
    """28 layers x 64 tiles of queries x 13 kernels x 3 passes, each for 65 / 2 tiles of keys, 3.3 microseconds each."""
    found = planned("h100:1x8", loops=[OpenLoop(kernels=13, entered=28 * 64, depth=3)] * 3)
    shown = 28 * 64 * 13 * 3 * 65 / 2 * 3.3e-6
    assert found.parts["launches"] + found.parts["attention"] == pytest.approx(shown)
    assert found.mfu < 0.2 < planned("h100:1x8").mfu


def test_loops_over_experts_rows_show_on_gpus():
    """48 layers x 9 loops of 6 kernels; 512 rows come to each of a device's 16 experts: 1.5 tiles a loop and expert."""
    mixture = model_config(dataclasses.replace(CFG, model="Qwen/Qwen3-30B-A3B"))
    steps = make_steps([8192] * 8, CFG.batch, 1, 0, Room(devices=8, parts=1, tokens=8192, row_length=8192))
    mesh = parse_mesh("fsdp:1,expert:8")
    loops = [OpenLoop(kernels=6, entered=48, depth=2)] * 9

    def time(loops):
        pod = Topology.parse("h100:1x8")
        return planned_time(CFG, mixture, pod, mesh, steps, sent=[], device_state=0, loops=loops)

    shown = 48 * 9 * 6 * 16 * (8192 * 8 * 8 / 128 / 512 + 0.5) * 3.3e-6
    assert time(loops).parts["launches"] == pytest.approx(shown - time([]).parts["attention"])


def test_float32_takes_longer():
    slow = dataclasses.replace(CFG, compute=ComputeConfig(dtype="float32", remat="full"))
    ratio = planned("h100:1x8", cfg=slow).parts["products"] / planned("h100:1x8").parts["products"]
    assert ratio == pytest.approx(989 / 67)


def test_the_mean_length_has_the_same_attention():
    assert mean_length([4, 4, 4]) == 4 and mean_length([1000, 3000]) == 2500


def test_the_last_part_of_a_split_row_sees_the_most():
    assert slowest_part(8192, 8192, 1) == 1
    assert slowest_part(8192, 8192, 4) == 2 - 1 / 4
    assert slowest_part(2048, 8192, 4) == 1
    assert 1 < slowest_part(4096, 8192, 4) < 2 - 1 / 4
