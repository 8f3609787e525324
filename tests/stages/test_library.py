"""The page for use as a library, as a user follows it: its programs are run."""

import re
from pathlib import Path

import pytest
from made_pool import sample, write_pool

from o1p_jax.config.tree import RunConfig
from o1p_jax.stages import pipeline
from o1p_jax.stages.weigh import weigh

PAGE = (Path(__file__).parents[2] / "docs/library.md").read_text()
REWARDS, RUN, READ = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(program: str) -> dict:
    names = {"__name__": "__main__"}
    exec(program, names)
    return names


def test_rewards_without_a_run(capsys):
    run(REWARDS)
    [printed] = re.findall(r"# (\[ .*\])", REWARDS)
    assert capsys.readouterr().out.strip() == printed


def test_a_run_is_a_configuration_and_a_call(monkeypatch):
    called = []
    monkeypatch.setattr(pipeline, "whole_job", called.append)
    run(RUN)
    [cfg] = called
    assert isinstance(cfg, RunConfig)
    assert (cfg.run, cfg.optim.learning_rate, cfg.model) == ("runs/mine", 1e-4, "embedded")


def test_what_a_run_holds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = RunConfig()
    rows = [sample("p", k, 10 + k, right=k == 0) for k in range(4)]
    pool, grades = write_pool(Path("runs/mine/round-1/pool"), rows)
    weigh(pool, grades, cfg.training, pool.identity, Path("runs/mine/round-1/weights"))
    assert run(READ)["table"].num_rows == 4
    assert r"\boxed{7}" in capsys.readouterr().out


@pytest.mark.parametrize("name", re.findall(r"`(o1p_jax\.[\w.]+)`", PAGE))
def test_what_the_page_names_is_there(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(__import__(module, fromlist=[attribute]), attribute)
