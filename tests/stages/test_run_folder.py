"""What a run keeps from its first start on."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from host import CHAT_TEMPLATE, model_folder, problem_file, run_config, source

from o1p_jax.config.saved import save_config
from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import run_folder
from o1p_jax.stages.pool import pool_path, training_pool
from o1p_jax.stages.run_folder import dated

FIRST, NEXT = datetime.date(2026, 11, 30), datetime.date(2026, 12, 1)


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
