"""Plans; those that need a pod's compiler are skipped where it is not installed (`pip install -e '.[plan]'`)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from drive_train import MODEL, tiny_model

from o1p_jax.config.chips import Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import BatchConfig, ComputeConfig, ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods.dast import DASTParams
from o1p_jax.models.families import read_config
from o1p_jax.planning.compile import abstract_batch, abstract_state, model_config, planned_steps
from o1p_jax.training.packing import make_steps
from o1p_jax.training.shapes import Room
from o1p_jax.training.step import make_train_step

pytestmark = pytest.mark.core
ROOT = Path(__file__).parents[2]


def launch(*flags):
    command = [sys.executable, ROOT / "launch" / "plan.py", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--topology: missing"),
        (("--topology=v5p:4x4x4", "--price=nan"), "--price=nan: must be a positive number"),
        (("--topology=v5p:4x4x4", "--json=nowhere/plan.json"), "--json=nowhere/plan.json: no such folder"),
        (("--topology=v5p:4x4x4", "--mesh=8x1"), "mesh=8x1: has 8 devices, v5p:4x4x4 has 64"),
        (
            ("--topology=v5p:4x4x4", "--mesh=tensor:64", "--batch.row_length=512", "--batch.too_long=drop"),
            "tensor = 64 does not divide",
        ),
    ],
)
def test_mistakes_are_one_line(flags, message):
    done = launch("--model=Qwen/Qwen3-8B", *flags)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_the_step_of_a_model_of_billions_can_be_traced():
    cfg = RunConfig(
        model="Qwen/QwQ-32B-Preview", compute=ComputeConfig(trainable_layers=48, remat="full"),
        batch=BatchConfig(row_length=1024, too_long="drop"),
    )  # fmt: skip
    model, mesh = model_config(cfg), make_mesh("8x1")
    state, frozen, shardings = abstract_state(cfg, model, (16, 48), mesh)
    step = make_train_step(model, (16, 48), cfg.training, 10, mesh, shardings)
    room = Room(devices=8, parts=1, tokens=2048, row_length=1024)
    batch = abstract_batch(make_steps([600] * 64, cfg.batch, 1, 0, room), mesh)
    assert batch.ids_RL.shape[1:] in ((8, 608), (8, 1024), (16, 608), (16, 1024))
    _, metrics = step.lower(state, frozen, (batch,)).out_info
    assert metrics["params_changed"].shape == ()


def test_a_method_of_pairs_is_planned_in_whole_pairs():
    cfg = RunConfig(
        method=DASTParams(), problems=ProblemConfig(max_prompt_tokens=50), sampling=SamplingConfig(max_tokens=500),
        batch=BatchConfig(row_length=800, too_long="drop", tokens_per_device=800),
    )  # fmt: skip
    steps = planned_steps(cfg, read_config(MODEL), Topology.parse("v5e:2x2"), parse_mesh("fsdp:4", 4), 201, 300)
    rows = [row for step in steps.packed for of_shape in step for rows in of_shape for row in rows]
    assert all(len(row) % 2 == 0 and row[1::2] == [i + 1 for i in row[::2]] for row in rows)
    assert 100 < sum(map(len, rows)) < 200  # two may be too long


def planned(tmp_path, topology, *flags):
    tiny_model(tmp_path / "model")
    done = launch(
        f"--model={tmp_path / 'model'}", f"--topology={topology}", "--batch.row_length=256",
        "--sampling.max_tokens=128", "--problems.max_prompt_tokens=64", "--problems_count=64",
        f"--json={tmp_path / 'plan.json'}", *flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((tmp_path / "plan.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_plan_for_a_tpu(tmp_path):
    text, found = planned(tmp_path, "v5e:2x2", "--mesh=fsdp:2,context:2")
    assert (
        "fits" in text
        and "MFU" in text
        and found["least_seconds"] < found["seconds"]
        and found["fits"]
        and 0.5 < found["fill"] <= 1
    )
    assert found["memory"]["peak"] < 2**30 and {c["axis"] for c in found["collectives"]} >= {"fsdp", "context"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="the CUDA plugin is not installed")
def test_a_plan_for_gpus(tmp_path):
    text, found = planned(tmp_path, "h100:1x4", "--mesh=fsdp:-1")
    assert "fits" in text and found["fits"]
    assert {"all-gather", "reduce-scatter"} <= {c["kind"] for c in found["collectives"]}
