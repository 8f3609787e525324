"""The model that a job starts from: known by its contents, and on the hub by the commit that was found first."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from drive_train import tiny_model
from huggingface_hub import constants

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.pool import pool_revision
from o1p_jax.stages.run_folder import kept_revision, open_run

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The hub's cache on disk, with two commits of org/model; `main` is the first."""
    folder = tmp_path / "hub" / "models--org--model"
    for commit, scale in ((FIRST, 0.1), (SECOND, 0.2)):
        tiny_model(folder / "snapshots" / commit, initializer_range=scale)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(FIRST)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_run_keeps_to_the_commit_that_its_first_start_found(hub, tmp_path):
    cfg = RunConfig(model="org/model", run=str(tmp_path / "run"))
    first = find_model(cfg.model, kept_revision(cfg))
    assert first.commit == FIRST
    open_run(cfg, first.commit)
    (hub / "refs" / "main").write_text(SECOND)  # somebody pushes
    assert find_model(cfg.model, cfg.revision).commit == SECOND
    again = find_model(cfg.model, kept_revision(cfg))
    assert again == first
    assert kept_revision(replace(cfg, revision="main")) == "main"  # asked for by name: another revision
    assert kept_revision(replace(cfg, model="org/other")) is None


def test_a_pool_keeps_to_the_commit_that_its_samples_were_drawn_from(hub, tmp_path):
    cfg = RunConfig(model="org/model", run=str(tmp_path / "run"), pool=str(tmp_path / "pool"))
    assert pool_revision(cfg) is None
    facts = {"origin": "sampled", "model": "org/model", "commit": FIRST, "revision": None}
    Pool.create(cfg.pool, identity={}, facts=facts, problems=[], prompts={}, problems_per_shard=1)
    (hub / "refs" / "main").write_text(SECOND)
    assert find_model(cfg.model, pool_revision(cfg)).commit == FIRST
    assert pool_revision(replace(cfg, revision="main")) == "main"
    assert pool_revision(replace(cfg, model="org/other")) is None


def test_the_digest_is_of_contents(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = find_model(str(tiny_model(tmp_path / "one")))
    assert one.commit is None
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert find_model(str(tmp_path / "two")).digest == one.digest
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert find_model(str(tmp_path / "two")).digest != one.digest
    assert find_model(str(tiny_model(tmp_path / "three", initializer_range=0.3))).digest != one.digest


def test_files_that_change_while_a_job_runs_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = find_model(str(tiny_model(tmp_path / "model")))
    handed_down = SourceModel.from_json(json.loads(json.dumps(source.to_json())))
    assert handed_down == source
    handed_down.check_unchanged()
    tiny_model(tmp_path / "model", initializer_range=0.3)
    with pytest.raises(BadInput, match="the model's files have changed since the job began"):
        handed_down.check_unchanged()
