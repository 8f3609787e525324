"""The stage that trains, as a process of its own: one owner a run, and nothing lost."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import environment
from drive_train import tiny_config, tiny_model
from made_pool import sample, write_pool

from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import OptimConfig
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import write_json
from o1p_jax.stages import identity
from o1p_jax.stages.train import train_and_export
from o1p_jax.stages.weigh import weigh

ROOT = Path(__file__).parents[2]
STEPS = 12


@pytest.fixture
def cfg(tmp_path):
    """A run whose samples are weighed, and which is to be trained in `STEPS` steps with many checkpoints."""
    tiny_model(tmp_path / "model")
    optim = OptimConfig(learning_rate=1e-3, epochs=STEPS)
    cfg = tiny_config(tmp_path / "run", mesh="1x1", every=1, optim=optim)
    pool, grades = write_pool(Path(cfg.run) / "pool", [sample("p", k, 3 + k, k < 4) for k in range(8)])
    weigh(pool, grades, cfg.training, identity.of_weights(cfg, pool.identity), Path(cfg.run) / "weights")
    return cfg


@pytest.mark.slow
def test_of_two_identical_jobs_one_trains_and_the_other_waits_for_it(cfg, tmp_path):
    job = {"config": to_dict(cfg), "source": find_model(cfg.model).to_json(), "place": None}
    processes = []
    for i in range(2):
        write_json(tmp_path / f"job-{i}.json", job)
        command = [sys.executable, "-m", "o1p_jax.stages.train", tmp_path / f"job-{i}.json"]
        processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(ROOT))
        )
    told = []
    for process in processes:  # their stdin stays open: they end with their parent
        assert process.stderr is not None
        told.append(process.stderr.read())
        assert process.wait(timeout=200) == 0, told
    assert sorted("training on" in text for text in told) == [False, True]
    run = Path(cfg.run)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 1 + STEPS))
    assert (run / "model" / "model.safetensors").is_file() and not list(run.glob(".*"))


def test_weights_by_other_settings_are_not_trained_on(cfg):
    other = replace(cfg, mesh="8x1", method=replace(cfg.method, lam=1.25))
    with pytest.raises(BadInput, match="another job weighs by other settings there"):
        train_and_export(other, find_model(cfg.model))
    assert not (Path(cfg.run) / "checkpoints").exists()
