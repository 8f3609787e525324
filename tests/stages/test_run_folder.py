"""A run's folder: what may become one, who owns it, and what it keeps from its first start on."""

import datetime
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from host import CHAT_TEMPLATE, model_folder, problem_file, run_config, source

from o1p_jax.config.saved import save_config
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.runtime import claims
from o1p_jax.runtime.errors import BadInput, ProcessLost
from o1p_jax.stages import run_folder
from o1p_jax.stages.pool import pool_path, training_pool
from o1p_jax.stages.run_folder import dated, kept_revision, open_run, owned

FIRST, NEXT = datetime.date(2026, 11, 30), datetime.date(2026, 12, 1)


@pytest.mark.parametrize("names", [[], ["slurm-123.out"], ["slurm-1_2.err", "job.o77", "job.e77"], [".nfs01", "logs"]])
def test_a_folder_that_holds_only_logs_becomes_a_run(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert kept_revision(RunConfig(run=str(tmp_path), revision="main")) == "main"


def test_a_folder_of_somebody_elses_does_not(tmp_path):
    for name in ("slurm-123.out", "thesis.tex"):
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match=r"is not a run folder \(it holds thesis.tex\)"):
        kept_revision(RunConfig(run=str(tmp_path)))


def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name, why in (("file/x", "Not a directory"), ("file", "Not a directory"), ("n" * 300, "File name too long")):
        with pytest.raises(BadInput, match=f"run=.*: {why}; name another folder"):
            kept_revision(RunConfig(run=str(tmp_path / name)))

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(BadInput, match="Permission denied; name another folder, or grant access"):
        kept_revision(RunConfig(run=str(tmp_path)))


def test_what_killed_processes_left_is_removed_when_a_run_is_opened(tmp_path):
    machine_and_more = "0123456789ab-1-1.abcdefgh"
    cfg = RunConfig(run=str(tmp_path / "run"), pool=str(tmp_path / "pool"))
    left = [Path(cfg.run) / f".{name}.{machine_and_more}" for name in ("model", "weights", "digest.txt")]
    claim = tmp_path / "pool" / "samples" / ".part-00000.claim"
    for path in (*left, claim, claim.with_name("part-00000.parquet")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    run = open_run(cfg, None)
    assert not claim.exists() and all(path.exists() for path in left)  # another machine may be writing
    with owned(run):
        assert not any(path.exists() for path in left)


def test_an_owner_that_lost_the_run_is_told(tmp_path):
    with owned(tmp_path) as still_own:
        still_own()
        (tmp_path / f".owner{claims.CLAIM}").write_text(json.dumps({"host": "b", "process": 5}))
        with pytest.raises(ProcessLost, match="process 5 on b has taken it over"):
            still_own()


@pytest.fixture
def config(tmp_path):
    folder = model_folder(tmp_path / "model", chat_template="{{ strftime_now('%Y-%m-%d') }}" + CHAT_TEMPLATE)
    return run_config(problem_file(tmp_path / "p.jsonl", 3), run=str(tmp_path / "run"), model=str(folder))


@pytest.fixture
def today(monkeypatch):
    def set_to(day):
        class Date(datetime.date):
            @classmethod
            def today(cls):
                return day

        monkeypatch.setattr(run_folder, "date", Date)

    set_to(FIRST)
    return set_to


def opened(cfg) -> Pool:
    problems = load_problems(cfg.problems.train, cfg.problems)
    return training_pool(cfg, source(cfg), make_prompts(Path(cfg.model), problems, cfg.problems))


def of_run(cfg):
    return dated(cfg, [pool_path(cfg)], Path(cfg.run))


def test_all_prompts_of_a_pool_name_the_day_of_its_first_start(config, today):
    pool = opened(of_run(config))
    today(NEXT)
    assert opened(of_run(config)).key == pool.key
    shared = replace(config, run=f"{config.run}2", pool=str(pool.path))  # another run of the same pool
    assert opened(of_run(shared)).key == pool.key
    decode = Prompter(Path(config.model)).decode
    assert all(decode(ids).startswith("2026-11-30") for ids in pool.problems.read()["prompt_ids"].to_pylist())
    other = replace(config, problems=replace(config.problems, date="2026-12-01"))
    with pytest.raises(BadInput, match="prompts_sha256"):
        opened(of_run(other))


def test_a_run_without_a_pool_of_its_own_keeps_its_day(config, today):
    save_config(Path(config.run) / "config.json", of_run(config), None)
    today(NEXT)
    assert of_run(config).problems.date == "2026-11-30"
    assert dated(config, []).problems.date == "2026-12-01"
