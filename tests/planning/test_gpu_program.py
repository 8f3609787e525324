"""The training step compiled for H100s that are not here, read; skipped where the CUDA plugin is not installed."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from o1p_jax.config.chips import Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import ComputeConfig
from o1p_jax.devices.mesh import mesh_of
from o1p_jax.planning.compile import (
    abstract_batch,
    abstract_state,
    devices_of,
    largest_attention,
    model_config,
    planned_steps,
)
from o1p_jax.stages.cli import load_config
from o1p_jax.training.step import make_train_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="no CUDA plugin"),
]
ROOT = Path(__file__).parents[2]
CONFIG = load_config(ROOT / "configs" / "r1_distill_qwen_7b.py")


def lowered(cfg, mesh):
    """What serves attention in the step for 8 H100s, and the step itself, not compiled yet."""
    topology = Topology.parse("h100:1x8")
    cfg, shape = dataclasses.replace(cfg, mesh=mesh), parse_mesh(mesh, topology.devices)
    model, devices = model_config(cfg), mesh_of(devices_of(topology), tuple(shape.values()))
    steps = planned_steps(cfg, model, topology, shape, 1000, cfg.sampling.max_tokens // 2)
    state, frozen, shardings = abstract_state(cfg, model, None, devices)
    step = make_train_step(model, None, cfg.training, 1000, devices, shardings)
    return largest_attention(cfg, model, devices, steps), step.lower(state, frozen, (abstract_batch(steps, devices),))


def deepest_loop(text):
    """In how many loops the innermost one of the program lies, itself included."""
    bodies, current, entry = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = match[2]
            entry = current if match[1] else entry
            bodies[current] = []
        elif current:
            bodies[current].append(line)

    def depth(name):
        found = [0]
        for line in bodies.get(name, []):
            if loop := re.search(r" while\(.*body=%?([\w.\-]+)", line):
                found.append(1 + depth(loop[1]))
            else:
                called = re.findall(r"(?:calls|to_apply|branch_computations)=\{?([^,}]+(?:, %[^,}]+)*)", line)
                found += [depth(n.lstrip("% ")) for group in called for n in group.split(",")]
        return max(found)

    return depth(entry)


def operands_of_products(text):
    """The types of all matrix products' operands."""
    types = dict(re.findall(r"%([\w.\-]+) = ([a-z]+\d+)\[", text))
    products = re.findall(r" dot\((.*?)\)", text) + re.findall(
        r" custom-call\((.*?)\), custom_call_target=\"__cublas", text
    )
    return {types[name] for operands in products for name in re.findall(r"%([\w.\-]+)", operands)[:2]}


@pytest.mark.parametrize("mesh", ["fsdp:-1", "fsdp:2,context:2,tensor:2"])
def test_attention_is_the_kernel_and_products_are_of_bfloat16(mesh):
    attention, step = lowered(CONFIG, mesh)
    text = step.compile().as_text()
    assert attention.by == "cuDNN's kernel for packed rows" and 2**20 < attention.workspace <= 2**31
    assert '"__cudnn$fmhaSoftmax"' in text and '"__cudnn$fmhaSoftmaxBackward"' in text
    # Layers, and the chunks of log-probabilities, lie in the loop over microbatches; nothing lies in them.
    assert deepest_loop(text) == 2
    assert operands_of_products(text) == {"bf16"}


def test_in_float32_the_loop_over_tiles_serves():
    attention, step = lowered(
        dataclasses.replace(CONFIG, compute=ComputeConfig(dtype="float32", remat="full")), "fsdp:-1"
    )
    text = step.compile().as_text()
    assert attention.by == "a loop over tiles (no kernel in float32)" and attention.workspace == 0
    assert "fmha" not in text and deepest_loop(text) > 2 and operands_of_products(text) == {"f32"}


@pytest.mark.parametrize(("remat", "forward"), [("full", 2), ("light", 1)])
def test_light_rematerialisation_runs_the_kernel_once(remat, forward):
    batch = dataclasses.replace(CONFIG.batch, tokens_per_device=17408)
    compute = ComputeConfig(dtype="bfloat16", remat=remat)
    text = lowered(dataclasses.replace(CONFIG, compute=compute, batch=batch), "fsdp:-1")[1].as_text()
    assert text.count("@__cudnn$fmhaSoftmax(") == forward and text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
