"""A stage whose memory does not suffice says in one line what helps, in whichever stage it happens."""

from dataclasses import asdict, replace
from pathlib import Path

import jax
import pytest
from drive_presample import FakePrompter, FakeSampler
from drive_train import tiny_config, tiny_model
from made_pool import sample, write_pool

from o1p_jax.config.saved import save_config
from o1p_jax.config.tree import BatchConfig, ComputeConfig, GradingConfig, SamplingConfig, VllmConfig
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import OutOfMemory
from o1p_jax.runtime.files import read_json, write_json_with_sum
from o1p_jax.sampling import SamplingParams
from o1p_jax.stages import evaluate, identity, pipeline, presample, prune, remedies
from o1p_jax.stages import grade as grading
from o1p_jax.stages import train as training
from o1p_jax.stages.weigh import weigh

TEXT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."


def full(*_, **__):
    raise jax.errors.JaxRuntimeError(TEXT)


class TooLarge(FakeSampler):
    def step(self):
        full()


@pytest.fixture
def cfg(tmp_path):
    """A run whose pool has one graded shard of two, and which is weighed as if that were all."""
    tiny_model(tmp_path / "model")
    batch = BatchConfig(tokens_per_device=40000)
    cfg = replace(tiny_config(tmp_path / "run", batch=batch), sampling=SamplingConfig(slots=64))
    pool, grades = write_pool(Path(cfg.run) / "pool", [sample("p", k, 3 + k, k < 4) for k in range(8)])
    weigh(pool, grades, cfg.training, identity.of_weights(cfg, pool.identity), Path(cfg.run) / "weights")
    save_config(Path(cfg.run) / "config.json", cfg, None)
    return cfg


def in_training(cfg, monkeypatch):
    monkeypatch.setattr(training, "train", full)
    training.train_and_export(cfg, find_model(cfg.model))


def in_export_after_training(cfg, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_, **__: Path(cfg.run) / "checkpoints" / "00000001")
    monkeypatch.setattr(training, "export", full)
    training.train_and_export(cfg, find_model(cfg.model))


def in_export_by_itself(cfg, monkeypatch):
    monkeypatch.setattr(pipeline, "newest_checkpoint", lambda *_: Path(cfg.run) / "checkpoints" / "00000001")
    monkeypatch.setattr(pipeline, "export", full)
    pipeline.export_run(Path(cfg.run), Path(cfg.run).parent / "out", None)


def in_sampling(cfg, monkeypatch):
    pool = Path(cfg.run) / "pool"
    draw = {"samples_per_problem": 8, "seed": 0, **asdict(SamplingParams(max_tokens=4, stop_ids=(2,)))}
    write_json_with_sum(pool / "pool.json", read_json(pool / "pool.json") | {"model": "m", "draw": draw})
    (pool / "samples" / "part-00000.parquet").unlink()
    monkeypatch.setattr(presample, "Prompter", FakePrompter)
    job = presample.SampleJob(
        title="train", pools=(str(pool),), folder=cfg.model, sampling=cfg.sampling, mesh=cfg.mesh, dtype="float32"
    )
    presample.presample(job, make_sampler=lambda *_, **__: TooLarge(None))


def in_grading(cfg, monkeypatch):
    monkeypatch.setattr(grading.Grader, "grade_many", lambda *_: (_ for _ in ()).throw(MemoryError()))
    grading.grade(grading.Pool(Path(cfg.run) / "pool"), GradingConfig(timeout_s=9))


def in_weighing(cfg, monkeypatch):
    pool = grading.Pool(Path(cfg.run) / "pool")
    monkeypatch.setattr(prune, "graded_pool", lambda *_: (pool, None))
    monkeypatch.setattr(prune, "weigh", lambda *_: (_ for _ in ()).throw(MemoryError("malloc of 8 GiB failed")))
    prune.weighed_samples(cfg, None, Path(cfg.run))


def in_comparing(cfg, monkeypatch):
    def too_large(*_):
        raise MemoryError

    pool, grades = write_pool(Path(cfg.run) / "pool", [sample("p", k, 3 + k, k < 4) for k in range(8)])
    monkeypatch.setattr(evaluate, "evaluation_pool", lambda *_: pool)
    monkeypatch.setattr(evaluate.where, "sample", lambda *_, **__: None)
    monkeypatch.setattr(evaluate, "grade", lambda *_: grades)
    monkeypatch.setattr(grading.Pool, "read", too_large)
    models, out = {"m": find_model(cfg.model)}, Path(cfg.run) / "evaluation"
    evaluate.compare_models(cfg, models, {("m", "test"): None}, out, "m", {})


@pytest.mark.parametrize(
    ("happens", "stage", "need", "helps"),
    [
        (in_sampling, "presample train", "16.00 GiB", "--sampling.slots=32"),
        (in_grading, "grade", "the host's memory", "--sampling.problems_per_shard"),
        (in_weighing, "weigh", "malloc of 8 GiB failed", "--problems.limit_train"),
        (in_training, "train", "16.00 GiB", "--batch.tokens_per_device=20000, --compute.remat=full"),
        (in_export_after_training, "export", "16.00 GiB", "--mesh"),
        (in_export_by_itself, "export", "16.00 GiB", "--mesh"),
        (in_comparing, "evaluate", "the host's memory", "--problems.limit_test"),
    ],
)
def test_every_stage_tells_what_it_needed_and_what_helps(cfg, monkeypatch, happens, stage, need, helps):
    with pytest.raises(OutOfMemory) as told:
        happens(cfg, monkeypatch)
    assert str(told.value).startswith(f"{stage}: ") and need in str(told.value) and helps in str(told.value)
    assert told.value.exit_code == 71


def test_only_what_still_helps_is_said(tmp_path):
    cfg = tiny_config(tmp_path, mesh="8x1", compute=ComputeConfig(remat="full", logprob_chunk=512))
    told = remedies.of_training(cfg, 48, 1)
    assert told[0] == "--compute.logprob_chunk=128" and "remat" not in " ".join(told)
    assert not any("tokens_per_device" in flag for flag in told)  # one row of 48 tokens
    assert "--batch.tokens_per_device=48" in remedies.of_training(cfg, 64, 1)
    assert "--batch.tokens_per_device=32" in remedies.of_training(cfg, 64, 2)
    vllm = SamplingConfig(sampler="vllm", vllm=VllmConfig(kv_cache_gib=8, tensor_parallel=2))
    assert remedies.of_sampling(vllm, "8x1")[:1] == ["--sampling.vllm.kv_cache_gib=4"]
    assert "tensor_parallel=4" in remedies.of_sampling(vllm, "8x1")[1]
    assert "slots" not in remedies.of_sampling(SamplingConfig(slots=1), "8x1")[0]
