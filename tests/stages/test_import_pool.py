"""Pools in from other programs, with the embedded model's own tokenizer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import launch
from made_pools import END, EXPORTED, PROBLEMS, PROMPTER, bring, contents, row, rows, run_config

from o1p_jax.config.tree import RunConfig, SamplingConfig
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import import_pool as module
from o1p_jax.stages.pool import check_imported, imported_pool


def refused(folder: Path, table: list[dict], **fields) -> str:
    with pytest.raises(BadInput) as e:
        bring(folder, table, **fields)
    assert "\n" not in str(e.value) and not (folder / "pool").exists()
    assert not list(folder.glob(".pool*"))  # nothing half made is left
    return str(e.value)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return bring(tmp_path_factory.mktemp("imported"), rows())


def test_the_pool_lies_apart_from_the_model(tmp_path):
    model = resolve_model("embedded")
    refused(tmp_path, rows(1), pool=str(model / "pool"))
    assert not (model / "pool").exists()


def test_samples_are_grouped_by_problem_and_numbered_as_they_come(imported):
    assert imported.complete and imported.samples.shards == 3
    expected = [row(n, k) | {"problem_id": PROBLEMS[n].problem_id, "sample_idx": k} for n in range(5) for k in range(4)]
    assert contents(imported) == [{name: r[name] for name in EXPORTED} for r in expected]
    shard = imported.read_shard(0, ["problem_id"])["problem_id"].to_pylist()
    assert shard == [PROBLEMS[n].problem_id for n in (0, 0, 0, 0, 1, 1, 1, 1)]


def test_the_pool_says_where_it_comes_from(imported):
    source = find_model("embedded")
    assert imported.identity["model_sha256"] == source.digest and imported.identity["imported_format"] == "jsonl"
    facts = json.loads((imported.path / "pool.json").read_text())
    assert facts["origin"] == "imported" and "draw" not in facts
    assert facts["imported"] == {
        "format": "jsonl", "files": ["pool.jsonl"], "fewest_samples": 4, "most_samples": 4,
        "longest_prompt": max(len(PROMPTER.prompt_ids(p)) for p in PROBLEMS),
        "not_checked": "whether the model sampled these solutions",
    }  # fmt: skip
    assert str(imported.path.parent) not in (imported.path / "pool.json").read_text()
    assert imported_pool(run_config(imported), source).key == imported.key


def test_the_same_again_changes_nothing_and_something_else_is_refused(tmp_path, capsys):
    pool = bring(tmp_path, rows())
    before = {f: f.stat().st_mtime_ns for f in pool.path.rglob("*")}
    assert bring(tmp_path, rows()).key == pool.key
    assert "holds these solutions already" in capsys.readouterr().err
    changed = rows()
    changed[7]["answer"] = "17"
    for other in (rows(3), rows()[::-1], changed):
        with pytest.raises(BadInput, match="holds another import"):
            bring(tmp_path, other)
    assert {f: f.stat().st_mtime_ns for f in pool.path.rglob("*")} == before


def test_recorded_grades_and_rewards_are_not_taken(imported, tmp_path, capsys):
    graded = bring(tmp_path, [r | {"grade": "wrong", "reward": -1.0, "pred": "9"} for r in rows()])
    assert graded.key == imported.key
    assert "recorded rewards and grades are not taken" in capsys.readouterr().err


def test_ragged_groups_and_ends_that_are_not_told(tmp_path, capsys):
    table = [r for i, r in enumerate(rows()) if i % 7]
    for r in table:
        del r["finish_reason"]
    pool = bring(tmp_path, table)
    said = capsys.readouterr().err
    assert "(3 to 4 each)" in said
    assert f"{len(table)} rows do not say how they ended" in said
    ends = pool.read(["completion_ids", "finish_reason"]).to_pylist()
    assert all((r["finish_reason"] == "stop") == (r["completion_ids"][-1] == END) for r in ends)
    assert {r["finish_reason"] for r in ends} == {"stop", "length"}


def test_problems_without_text_are_told_apart_by_their_prompts(tmp_path):
    table = [{k: v for k, v in r.items() if k != "problem"} for r in rows()]
    pool = bring(tmp_path, table)
    assert pool.facts["problems"] == 5 and set(pool.problems.read()["problem"].to_pylist()) == {""}
    assert len(pool.samples.read()) == 20


def test_solutions_that_are_the_same_count_unless_their_seed_is_the_same_too(tmp_path, capsys):
    twice = [row(0, 0), row(0, 0, seed=99), row(0, 1)]
    assert len(bring(tmp_path, twice).samples.read()) == 3
    bring(tmp_path, [row(0, 0, seed=None)] * 2, name="seedless")
    assert "1 solutions are the same as another" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"row 3: repeats an earlier row, seed=0 included"):
        bring(tmp_path, [row(0, 0), row(0, 1), row(0, 0)], name="repeated")


def test_what_does_not_fit_the_model_is_refused(tmp_path):
    size = find_model("embedded").decoder.vocab_size
    bad_id = refused(tmp_path, [row(0, 0), row(0, 1, completion_ids=[5, size])])
    assert f"row 2: token id {size} of the completion is not among the {size} of model=embedded" in bad_id
    assert "of the prompt is not among" in refused(tmp_path, [row(0, 0, prompt_ids=[-1])])
    assert "row 1: the completion goes on after" in refused(tmp_path, [row(0, 0, completion_ids=[END, END])])
    assert "row 2: other prompt ids than" in refused(tmp_path, [row(0, 0), row(0, 1, prompt_ids=[5, 6])])
    too_long = refused(tmp_path, [row(0, 0, completion_ids=[5] * 2048)])
    assert "row 1: prompt and completion have" in too_long and "the context of model=embedded has 2048" in too_long
    if PROMPTER.pad_id is not None:
        assert "begin with padding" in refused(tmp_path, [row(0, 0, prompt_ids=[PROMPTER.pad_id, 5])])


def test_few_differing_texts_are_counted_and_many_are_refused(tmp_path, capsys):
    table = rows(8)
    table[3]["completion"] += " and more"
    bring(tmp_path, table, name="few")
    assert "1 of 40 recorded texts differ" in capsys.readouterr().err
    for r in table[5:8]:
        r["completion"] = "something else"
    message = refused(tmp_path, table)
    assert "row 4: the token ids say something else" in message and "so do 4 of 40 rows" in message
    assert "model=embedded" in message


def test_text_with_special_tokens_or_without_outer_space_is_the_same_text(tmp_path, capsys):
    table = [row(0, k, completion=f" {PROMPTER.decode(row(0, k)['completion_ids'], special=True)}\n") for k in (0, 1)]
    bring(tmp_path, table)
    assert "differ" not in capsys.readouterr().err


def test_folders_of_someone_else_are_left_alone(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not a pool"):
        bring(tmp_path, rows())
    (tmp_path / "pool" / "thesis.tex").rename(tmp_path / "thesis.tex")
    assert bring(tmp_path, rows()).complete  # an empty folder may be there


def test_a_spool_larger_than_its_buffer_gives_the_same_pool(tmp_path, imported, monkeypatch):
    monkeypatch.setattr(module, "_BUFFER_BYTES", 100)
    assert contents(bring(tmp_path, rows())) == contents(imported)


def test_a_run_is_told_what_an_imported_pool_stands_for(imported, capsys):
    check_imported(run_config(imported), imported)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "brings its own 5 problems" in said and "problems.train" in said
    check_imported(replace(run_config(imported), method=O1PrunerParams(m=8)), imported)
    assert "method.m=8: a problem that has fewer samples" in capsys.readouterr().err
    drawn = SamplingConfig(samples_per_problem=2)  # says nothing of this pool
    check_imported(replace(run_config(imported), sampling=drawn), imported)
    problems = replace(RunConfig().problems, max_prompt_tokens=10)
    with pytest.raises(BadInput, match=r"raise problems\.max_prompt_tokens=10"):
        check_imported(run_config(imported, problems=problems), imported)


def test_a_pool_of_one_sample_a_problem_has_nothing_to_compare(tmp_path):
    pool = bring(tmp_path, rows(1))
    with pytest.raises(BadInput, match="one sample each, and method=o1_pruner compares"):
        check_imported(run_config(pool), pool)


def test_an_imported_pool_of_another_model_or_with_files_gone_is_refused(tmp_path):
    pool, source = bring(tmp_path, rows()), find_model("embedded")
    with pytest.raises(BadInput, match="imported as those of embedded"):
        imported_pool(run_config(pool), replace(source, digest="other", name="other"))
    pool.samples.shard_path(1).unlink()
    with pytest.raises(BadInput, match="1 files are gone; import again"):
        imported_pool(run_config(pool), source)


def test_mistyped_flags_and_missing_ones_are_one_line(tmp_path):
    for argv, message in [
        (["--pool=p", "--model=embedded"], "rollouts"),
        (["--rollouts", "none.jsonl", f"--pool={tmp_path / 'p'}", "--model=embedded"], "none.jsonl: no such file"),
        (["--rollout", "x"], "did you mean --rollouts"),
        (["--rollouts", "x.jsonl", "--pool=p", "--model=m", "--format=nemo"], "format"),
    ]:
        done = launch("import_pool.py", *argv)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / "p").exists()
