"""What people are told of test problems that stand among the training problems."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_pool import sample, write_pool
from made_pools import PROBLEMS, bring, row, run_config

from o1p_jax.config.saved import CONFIG, save_config
from o1p_jax.config.tree import EvaluationConfig, ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.data.embedded import embedded_problems
from o1p_jax.runtime.files import write_json
from o1p_jax.stages import preflight as stages_preflight
from o1p_jax.stages.card import PROVENANCE
from o1p_jax.stages.overlap import notes_on_models, notes_on_problems
from o1p_jax.stages.preflight import preflight

TEST = embedded_problems("test", 8)
SMALL = dict(sampling=SamplingConfig(max_tokens=99), evaluation=EvaluationConfig(max_tokens=99), mesh="1x1")


@pytest.fixture(autouse=True)
def devices_are_there(monkeypatch):
    """The tests' process may have its devices already."""
    monkeypatch.setattr(stages_preflight, "set_up_devices", lambda mesh: None)


def rows(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"problem": text, "answer": "4"}) + "\n" for text in texts))
    return str(path)


def test_a_run_is_told_of_overlap_at_once_with_an_example_and_goes_on(tmp_path, capsys):
    there = [TEST[0].problem.upper(), TEST[1].problem.replace("takes", "eats"), *(p.problem for p in TEST[2:])]
    sets = (rows(tmp_path / "mine.jsonl", [*there[:2], "1+1?"]), "embedded:validation")
    problems = ProblemConfig(train="embedded:test", limit_train=8, test=sets, limit_test=8)
    cfg = RunConfig(run=str(tmp_path / "run"), problems=problems, **SMALL)
    inputs = preflight(cfg, ("train", "test"))
    assert list(inputs.tests) == list(inputs.notes) == ["mine.jsonl", "embedded:validation"]
    [found], [none] = inputs.notes.values()
    assert found.warns and found.text.startswith(
        "overlap: 2 of the 3 test problems stand among the 8 training problems: 1 by text, 1 nearly so, such as 'A MACH"
    )
    assert not none.warns and "none of the 8 test problems stands among the 8 training problems" in none.text
    said = [line for line in capsys.readouterr().err.splitlines() if "overlap" in line]
    assert said == [f"mine.jsonl: {found.text}"]


def test_a_near_example_shows_both_texts_in_one_line_with_hidden_characters_by_their_code():
    test = replace(TEST[0], problem="Which of\n the seven \u202e dwarfs\tis the one who never speaks?")
    [note] = notes_on_problems(ProblemConfig(), ["", test.problem.replace("Which", "What"), " "], {"s": [test]})["s"]
    assert note.text == (
        "overlap: 1 of the 1 test problems stand among the 1 training problems (and 2 without text, which were not "
        "looked at): 0 by text, 1 nearly so, such as 'Which of the seven \\u202e dwarfs is the one who never speaks?', "
        "nearly 'What of the seven \\u202e dwarfs is the one who never speaks?'"
    )


def test_an_imported_pools_own_problems_are_looked_at(tmp_path):
    pool = bring(tmp_path, [row(n, k) for n in range(3) for k in range(4)])
    test = rows(tmp_path / "test.jsonl", [p.problem for p in PROBLEMS[1:5]])
    cfg = run_config(pool, run=str(tmp_path / "run"), problems=ProblemConfig(test=(test,)), **SMALL)
    [note] = preflight(cfg, ("train", "test")).notes["test.jsonl"]
    assert note.text.startswith("overlap: 2 of the 4 test problems stand among the 3 training problems: 2 by text")


def test_models_are_looked_at_by_the_pools_of_their_runs_and_others_are_named(tmp_path):
    run = tmp_path / "run"
    model = run / "model"
    write_json(model / PROVENANCE, {})
    save_config(run / CONFIG, RunConfig(run="elsewhere/before/it/was/moved"), None)
    models = {"base": tmp_path, "after": model}
    [unknown] = notes_on_models(ProblemConfig(), models, {"test": TEST})["test"]  # the pool is gone
    assert unknown.text == "overlap: not looked at for base, after, whose training problems are not at hand"
    write_pool(run / "pool", [sample(TEST[3].problem, 0, 5, True), sample("1+1?", 0, 5, True)])
    found, unknown = notes_on_models(ProblemConfig(), models, {"test": TEST})["test"]
    assert found.text.startswith("overlap: 1 of the 8 test problems stand among the 2 training problems of after: 1 by")
    assert unknown.text == "overlap: not looked at for base, whose training problems are not at hand"


@pytest.mark.parametrize("look", [notes_on_problems, notes_on_models])
def test_turned_off_it_says_so(look):
    [note] = look(ProblemConfig(check_overlap=False), {}, {"test": TEST})["test"]
    assert note.text == "overlap: not looked at (problems.check_overlap=False)" and not note.warns
