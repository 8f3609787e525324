"""What the preflight looks at first."""

import pytest

from o1p_jax.config.tree import ProblemConfig, RunConfig
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import evaluate, preflight


def refuse(*_):
    raise AssertionError("the model's weights are read")


def test_problem_files_are_read_before_the_models_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "find_model", refuse)
    cfg = RunConfig(run=str(tmp_path / "run"), problems=ProblemConfig(test="none.jsonl"))
    with pytest.raises(BadInput, match=r"none\.jsonl: no such file"):
        preflight.preflight(cfg, ("train", "test"))
    monkeypatch.setattr(evaluate, "find_model", refuse)
    with pytest.raises(BadInput, match=r"none\.jsonl: no such file"):
        evaluate.evaluate(cfg, ["embedded"], ["none.jsonl"], tmp_path / "out")
