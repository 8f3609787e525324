"""DPO from graded samples to a trained model: pairs stay together, and the loss is that of pairs."""

import json
import math
import shutil

import numpy as np
import pytest
from drive_train import tiny_config, tiny_model
from made_pool import sample, write_pool

from o1p_jax.config.tree import BatchConfig, OptimConfig
from o1p_jax.data.pool import Pool
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods.dpo_shortest import DPOShortestParams
from o1p_jax.models.source import find_model
from o1p_jax.stages import identity
from o1p_jax.stages.weigh import read_weights, weigh
from o1p_jax.training.loop import train
from o1p_jax.training.samples import TrainingSet

METHOD = DPOShortestParams(beta=0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A tiny model, and the weighed samples of 9 problems: one is never solved, the others make 2 pairs each."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    tiny_model(folder / "model")
    rows = [
        sample(f"p{i}", k, 0, i > 0, prompt_ids=[1, i + 2],
               completion_ids=rng.integers(1, 48, 3 + 3 * k).tolist())
        for i in range(9) for k in range(4)
    ]  # fmt: skip
    pool, grades = write_pool(folder / "pool", rows)
    cfg = config(folder / "run", "1x1")
    report = weigh(pool, grades, cfg.training, identity.of_weights(cfg, pool.identity), folder / "weights")
    assert (report.kept, report.left_out) == (8 * 3, 1)
    return folder


def config(run, mesh):
    return tiny_config(run, mesh=mesh, every=3, method=METHOD, optim=OptimConfig(learning_rate=2e-3, epochs=2),
                       batch=BatchConfig(sequences=12, row_length=48, too_long="drop"))  # fmt: skip


def trained(home, name, mesh="1x1"):
    """The metrics of all steps, and the digest."""
    run, cfg = home / name, config(home / name, mesh)
    samples = TrainingSet.of_pool(Pool(home / "pool"), read_weights(home / "weights"), METHOD.UNIT)
    train(cfg.training, samples, find_model(cfg.model), make_mesh(mesh), run)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()], (
        run / "digest.txt"
    ).read_text()


@pytest.mark.core
def test_pairs_are_learned_and_a_run_that_was_stopped_ends_with_the_same_bits(home):
    metrics, digest = trained(home, "run")
    assert [m["sequences"] for m in metrics] == [12, 12, 8] * 2  # 16 pairs, 6 a step
    # Before the first update the ratios are 1, so that the margin is 0.
    assert metrics[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert metrics[-1]["loss"] < 0.9 * math.log(2) and metrics[-1]["clip_fraction"] == 0
    shutil.rmtree(max((home / "run" / "checkpoints").iterdir()))
    (home / "run" / "digest.txt").unlink()
    assert trained(home, "run")[1] == digest


@pytest.mark.slow
def test_a_mesh_changes_nothing_but_rounding(home):
    one, spread = trained(home, "one")[0], trained(home, "spread", "2x4")[0]
    np.testing.assert_allclose([m["loss"] for m in spread], [m["loss"] for m in one], rtol=1e-4)
