import math
import re
from dataclasses import replace

import pytest

from o1p_jax.config.tree import BatchConfig, EvaluationConfig, ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.data.problems import training_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.planning.dry_run import dry_run
from o1p_jax.runtime.errors import BadInput

CFG = RunConfig(
    problems=ProblemConfig(train="embedded:validation", limit_train=10, max_prompt_tokens=128),
    sampling=SamplingConfig(max_tokens=384),
    method=O1PrunerParams(m=4),
    evaluation=EvaluationConfig(max_tokens=384),
    batch=BatchConfig(sequences=16, row_length=512),
)


def test_a_dry_run_shows_the_beginning_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = replace(CFG, rounds=2, fresh_problems=True)
    dry_run(cfg)
    shown = capsys.readouterr().out
    folder = resolve_model("embedded")
    prompts = make_prompts(folder, training_problems(cfg.of_round(1).problems), CFG.problems)
    of_round = len(prompts.problems)
    assert 3 < of_round < 10
    for problem in prompts.problems[:3]:
        assert Prompter(folder).decode(prompts.prompt_ids[problem.problem_id], special=True) in shown
    assert shown.count("--- prompt") == 3 and "--- prompt 1, " in shown
    gold = prompts.problems[0].answer
    assert f"final answer '{gold}', correct" in shown
    for said in (
        f"{of_round} problems x m=4",
        f"up to {math.ceil(of_round / 4)}:",
        "16 solutions in rows of up to 512 tokens",
        f"{16 * of_round} solutions",
        "up to 2, each of them as told here but for its model and its problems, one of 2 parts",
    ):
        assert said in shown
    assert re.search(r"memory +about \d+\.\d\d GiB a device of the mesh fsdp:8 for 512 tokens", shown)
    assert not [*tmp_path.iterdir()]


def test_a_dry_run_refuses_what_the_run_would(tmp_path):
    with pytest.raises(BadInput, match="hidden_size"):
        dry_run(replace(CFG, mesh="48x1"))
    with pytest.raises(BadInput, match="no such file"):
        dry_run(replace(CFG, problems=replace(CFG.problems, train=str(tmp_path / "none.jsonl"))))
