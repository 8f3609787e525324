import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import environment
from drive_train import notes_of, tiny_config, tiny_model, tiny_samples

from o1p_jax.config.tree import BatchConfig, OptimConfig, RunConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput, CorruptData, NonFinite, Preempted
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import train, trained_params
from o1p_jax.training.samples import TrainingSet

pytestmark = pytest.mark.slow
SAMPLES = tiny_samples(40)
STEPS = 40  # of a driven run, ten an epoch


def config(run: Path, **changes) -> RunConfig:
    return tiny_config(run, mesh="1x1", every=2, **changes)


def start(cfg: RunConfig, samples=SAMPLES, **more) -> Path:
    run = Path(cfg.run)
    mesh = make_mesh(cfg.mesh)
    return train(cfg.training, TrainingSet.of(samples), find_model(cfg.model), mesh, run, notes=notes_of(cfg), **more)


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the model, and in `done` a finished run of 6 steps that is only read."""
    folder = tmp_path_factory.mktemp("train")
    tiny_model(folder / "model")
    start(config(folder / "done"), constants={"wrong_positive": 0.25})
    return folder


def copied(home: Path, name: str) -> Path:
    shutil.rmtree(home / name, ignore_errors=True)
    shutil.copytree(home / "done", home / name)
    return home / name


@pytest.mark.core
def test_a_run_leaves_checkpoints_metrics_and_digest(home):
    run = home / "done"
    assert [f.name for f in checkpoint.steps(run / "checkpoints")] == ["00000004", "00000006"]
    lines = logged(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["wrong_positive"] == 0.25 and line["tokens_per_second"] > 0 for line in lines)
    held = sum(len(sample.prompt_ids) + len(sample.completion_ids) for sample in SAMPLES)
    seen = sum(line["sequences"] for line in lines) / len(SAMPLES)
    assert sum(line["tokens"] for line in lines) == seen * held  # prompts and completions of whole epochs
    assert lines[0]["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert lines[-1]["ratio_max"] > 1.0 > lines[-1]["ratio_min"]
    assert list((run / "tensorboard").iterdir())
    assert len((run / "digest.txt").read_text().strip()) == 64


def test_the_samplers_log_probabilities_are_held_against_the_trainers(home, capsys):
    few = OptimConfig(learning_rate=1e-3, steps=2)
    start(config(home / "told", optim=few))
    assert "mismatch" not in "".join(logged(home / "told")[0]) and "sampler and trainer" not in capsys.readouterr().err
    parts = [pq.read_table(path) for path in sorted((home / "told" / "reference").glob("*.parquet"))]
    own = {(row["problem_id"], row["sample_idx"]): row["logprobs"] for part in parts for row in part.to_pylist()}
    samples = TrainingSet.of(SAMPLES)
    used = [i for i, name in enumerate(samples.names) if name in own][:2]
    for name, off in (("near", 1e-3), ("far", 0.3)):
        told = {i: np.array(own[samples.names[i]]) - off for i in used}
        cfg = config(home / name, optim=few)
        mesh, source = make_mesh("1x1"), find_model(cfg.model)
        train(cfg.training, dataclasses.replace(samples, told=lambda: told), source, mesh, home / name)  # noqa: B023
        line = logged(home / name)[-1]
        assert line["mismatch_mean"] == pytest.approx(off, rel=1e-3) and line["mismatch_samples"] == 2
        said = capsys.readouterr().err
        assert "sampler and trainer differ by" in said and ("more than rounding makes" in said) == (name == "far")
        assert (home / name / "digest.txt").read_text() == (home / "told" / "digest.txt").read_text()


def test_ratios_may_be_to_another_model_than_is_trained(home):
    other, few = tiny_model(home / "other", initializer_range=0.1), OptimConfig(learning_rate=1e-3, steps=2)
    of_both, of_other = (config(home / name, optim=few) for name in ("of_both", "of_other"))
    start(of_both, reference=find_model(str(other)))
    start(dataclasses.replace(of_other, model=str(other)))
    parts = [{p.name: p.read_bytes() for p in Path(c.run, "reference").iterdir()} for c in (of_both, of_other)]
    assert parts[0] == parts[1] and parts[0]
    assert logged(home / "of_both")[0]["ratio_mean"] != pytest.approx(1.0, abs=1e-2)
    source, mesh = find_model(str(home / "model")), make_mesh("1x1")
    trained, _ = trained_params(checkpoint.newest(home / "of_both" / "checkpoints"), source, mesh)
    near = jax.tree.map(
        lambda a, b: np.abs(a - b).max() < 0.01, trained, load_params(source.folder, source.decoder, mesh)
    )
    assert jax.tree.all(near)


@pytest.mark.core
def test_steps_go_on_while_a_checkpoint_is_written(home, monkeypatch):
    run, sums = home / "beside", checkpoint._sums

    def after_the_next_step(folder: Path) -> dict[str, str]:
        deadline = time.monotonic() + 60
        while steps_logged(run) < min(int(folder.name) + 1, 6):
            assert time.monotonic() < deadline, f"no step after {folder.name} while it was written"
            time.sleep(0.01)
        return sums(folder)

    monkeypatch.setattr(checkpoint, "_sums", after_the_next_step)
    start(config(run))
    assert (run / "digest.txt").read_text() == (home / "done" / "digest.txt").read_text()
    assert [f.name for f in checkpoint.steps(run / "checkpoints")] == ["00000004", "00000006"]


def test_training_moves_the_weights_samples_that_are_wanted_up(home):
    run = home / "up"
    samples = [dataclasses.replace(s, weight=1.0) for s in SAMPLES]
    start(config(run, optim=OptimConfig(learning_rate=3e-3, epochs=4)), samples)
    assert logged(run)[-1]["ratio_mean"] > 1.02


def test_a_finished_run_is_left_alone(home):
    before = (home / "done" / "metrics.jsonl").stat().st_mtime_ns
    assert start(config(home / "done")) == home / "done" / "checkpoints" / "00000006"
    assert (home / "done" / "metrics.jsonl").stat().st_mtime_ns == before


def test_the_run_folder_of_another_configuration_is_refused(home):
    with pytest.raises(BadInput, match=r"made with optim.learning_rate=0.001, not 0.002"):
        start(config(home / "done", optim=OptimConfig(learning_rate=2e-3, epochs=2)))
    with pytest.raises(BadInput, match="made with other samples"):
        start(config(home / "done"), SAMPLES[1:])
    with pytest.raises(BadInput, match=r"batch.row_length=3: 40 of 40 samples are longer, up to"):
        start(config(home / "short", batch=BatchConfig(row_length=3, too_long="drop")))
    assert not (home / "short").exists()


@pytest.mark.core
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_the_end_is_the_same(home, capfd):
    run = copied(home, "damaged")
    (run / "digest.txt").unlink()
    newest = run / "checkpoints" / "00000006"
    victim = max((f for f in (newest / "params").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    start(config(run))
    assert "is damaged; passing over this checkpoint" in capfd.readouterr().err
    assert (run / "digest.txt").read_text() == (home / "done" / "digest.txt").read_text()
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("text", ["", "0" * 64 + "\n", "\xff"])
def test_a_damaged_digest_is_made_again(home, text):
    run = copied(home, "digest")
    (run / "digest.txt").write_text(text, encoding="latin1")
    start(config(run))
    assert (run / "digest.txt").read_text() == (home / "done" / "digest.txt").read_text()


@pytest.mark.core
def test_steps_after_the_checkpoint_stand_once_in_the_metrics(home):
    run = copied(home, "again")
    shutil.rmtree(run / "checkpoints" / "00000006")
    with (run / "metrics.jsonl").open("a") as f:
        f.write('{"step": 7, "lo')  # killed in the middle of a line
    start(config(run))
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.core
def test_trained_parameters_for_export(home):
    source, mesh = find_model(str(home / "model")), make_mesh("4x1")
    folder = home / "done" / "checkpoints" / "00000006"
    params, splits = trained_params(folder, source, mesh)
    before = load_params(source.folder, source.decoder, mesh)
    assert splits is None and jax.tree.structure(params) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(params), jax.tree.leaves(before), strict=True):
        assert new.sharding.is_equivalent_to(old.sharding, new.ndim) and (np.asarray(new) != np.asarray(old)).any()
    with pytest.raises(BadInput, match="not the weights"):
        trained_params(folder, find_model(str(tiny_model(home / "other", initializer_range=0.1))), mesh)
    run = copied(home, "cut")
    (run / "checkpoints" / "00000006" / checkpoint.MANIFEST).unlink()
    with pytest.raises(CorruptData, match="not a finished checkpoint"):
        trained_params(run / "checkpoints" / "00000006", source, mesh)


def test_non_finite_steps_stop_the_run_after_a_few(home):
    run = home / "bad"
    samples = [dataclasses.replace(s, weight=float("inf")) for s in SAMPLES]
    with pytest.raises(NonFinite, match=r"optim.max_bad_steps=2") as caught:
        start(config(run, optim=OptimConfig(max_bad_steps=2)), samples)
    assert caught.value.exit_code == 70
    lines = logged(run)
    assert [line["skipped"] for line in lines] == [1, 2]
    assert all(line["loss"] is None and line["params_changed"] == 0 for line in lines)


class Driven:
    """Runs of tests/helpers/drive_train.py as processes of their own."""

    def __init__(self, home: Path):
        self.home = home
        root = Path(__file__).parents[2]
        self.env = environment(root)
        self.command = [sys.executable, str(root / "tests" / "helpers" / "drive_train.py")]

    def start(self, run: Path) -> subprocess.Popen:
        command = [*self.command, run, "2", str(STEPS // 10)]
        return subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE, text=True)

    def finish(self, run: Path) -> None:
        process = self.start(run)
        _, errors = process.communicate()
        assert process.returncode == 0, errors


def steps_logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def unfinished(run: Path) -> list[Path]:
    """Checkpoints that are being written, or were when the run was killed."""
    folders = set((run / "checkpoints").glob("*"))
    return sorted(folders - set(checkpoint.steps(run / "checkpoints")))


@pytest.fixture(scope="module")
def driven(home) -> Driven:
    driven = Driven(home)
    driven.finish(home / "undisturbed")
    return driven


def assert_as_undisturbed(home: Path, run: Path) -> None:
    assert (run / "digest.txt").read_text() == (home / "undisturbed" / "digest.txt").read_text()
    assert [line["step"] for line in logged(run)] == list(range(1, STEPS + 1))
    for ours, theirs in zip(logged(run), logged(home / "undisturbed"), strict=True):
        assert all(ours[name] == theirs[name] for name in ours if name not in ("seconds", "tokens_per_second"))


def test_kills_at_random_points_end_with_the_same_bits(home, driven):
    """Eight of them; `python -m tests.torture` has a hundred kills and signals, of the whole job."""
    run, rng, startup, in_a_write = home / "killed", random.Random(0), 3.0, 0
    for kill in range(8):  # of at most three steps each, so that the steps are enough
        before, began = steps_logged(run), time.monotonic()
        process = driven.start(run)
        if kill % 2:  # in the middle of steps, mostly while a checkpoint is written beside them
            while steps_logged(run) <= before and process.poll() is None:
                time.sleep(0.02)
            startup = time.monotonic() - began
            end = time.monotonic() + rng.uniform(0, 0.3)
            while (time.monotonic() < end or not unfinished(run)) and steps_logged(run) < before + 3:
                time.sleep(0.001)
        else:  # before that: imports, loading, reference log-probs, restoring
            end = began + rng.uniform(0.3, 1.0) * startup
            while time.monotonic() < end and steps_logged(run) <= before:
                time.sleep(0.01)
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.wait()
        in_a_write += bool(unfinished(run))
    assert in_a_write >= 2
    driven.finish(run)
    assert_as_undisturbed(home, run)
    names = [p.name for p in (run / "checkpoints").iterdir()]
    assert sorted(names) == [f"{STEPS - 2:08d}", f"{STEPS:08d}"]  # nothing unfinished left behind


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(home, driven, number):
    run = home / f"signalled-{number}"
    process = driven.start(run)
    while steps_logged(run) < 5:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == Preempted.exit_code == 75, errors
    assert f"saved on {number.name}" in errors.splitlines()[-1]
    saved = checkpoint.newest(run / "checkpoints")
    assert saved is not None and int(saved.name) == len(logged(run))
    driven.finish(run)
    assert_as_undisturbed(home, run)
