"""Rounds of the whole job, small, in this process: what is kept, handed over, held out, and done once."""

import json
import shutil
from pathlib import Path

import pytest
from counted_job import configuration, copied, counting, job

from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import training_problems
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import rounds
from o1p_jax.stages.export import newest_checkpoint
from o1p_jax.stages.export_pool import export_pool
from o1p_jax.stages.pipeline import samples_only
from o1p_jax.stages.preflight import preflight
from o1p_jax.stages.prune import weighed_samples
from o1p_jax.stages.verify import parts_of_run, verify
from o1p_jax.stages.weigh import held_out, read_weights

pytestmark = pytest.mark.slow
# A step so small that no answer of a few problems changes: both rounds are kept.
FLAGS = ["--rounds=2", "--fresh_problems=False", "--batch.hold_out=0.3", "--problems.limit_train=16",
         "--optim.learning_rate=1e-7"]  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    home = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield home / "run", job(home / "run", *FLAGS)


def weights_of(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def told(run: Path) -> list[dict]:
    return json.loads((run / "rounds.json").read_text())


def test_each_round_is_trained_from_the_last_ones_model_and_the_last_one_kept_is_the_result(first):
    run, _ = first
    assert [(t["round"], t["kept"]) for t in told(run)] == [(1, True), (2, True)]
    assert told(run)[1]["fell"] == {"base": [], "round 1": []}
    made = [json.loads((run / f"round-{n}" / "model" / "o1p_jax.json").read_text()) for n in (1, 2)]
    assert made[0]["embedded"] and made[1]["base"] == "model"
    assert weights_of(run) == weights_of(run / "round-2") != weights_of(run / "round-1")
    card = (run / "model" / "README.md").read_text()
    assert "made in 2 rounds" in card and "# embedded, pruned" in card and "Before and after" in card
    assert "made in" not in (run / "round-2" / "model" / "README.md").read_text()


def test_a_rounds_model_is_sampled_from_in_memory_and_gives_what_its_folder_gives(first, tmp_path):
    run, counts = copied(first[0], tmp_path / "run"), first[1]
    assert counts["loaded"] == 3  # the base alone: for the held-out problems, the first round's samples and the table
    [pool] = (run / "held_out" / "pools").glob("round_2-*")
    before = {path.name: path.read_bytes() for path in (pool / "samples").glob("*.parquet")}
    shutil.rmtree(pool)
    assert job(run, *FLAGS)["loaded"] == 1
    assert before == {path.name: path.read_bytes() for path in (pool / "samples").glob("*.parquet")} and before


def test_what_is_held_out_is_sampled_and_never_trained_on(first):
    run, _ = first
    for number in (1, 2):
        folder = run / f"round-{number}"
        of_pool = set(Pool(folder / "pool").problems.read(["problem_id"])["problem_id"].to_pylist())
        rows = read_weights(folder / "weights").read().to_pylist()
        trained = {row["problem_id"] for row in rows if row["weight"] is not None}
        out = {problem for problem in of_pool if held_out(problem, 0.3)}
        assert out and trained and not out & trained and len(of_pool) == 16
    judged = {Pool(path).facts["problems"] for path in (run / "held_out" / "pools").iterdir()}
    assert judged == {len(out)}


def test_what_lies_in_the_rounds_is_asked_for_there(first, tmp_path):
    run, _ = first
    for what in (lambda: newest_checkpoint(run), lambda: export_pool(None, tmp_path / "data", run)):
        with pytest.raises(BadInput, match=r"its rounds have their own: name one, such as .*run/round-2$"):
            what()
    assert newest_checkpoint(run / "round-2").is_dir()


def test_a_start_with_nothing_to_do_does_nothing(first):
    run, counts = first
    assert counts["sampled"] and counts["steps"] and counts["weighed"] == 2
    again = job(run, *FLAGS)
    assert not any(again[name] for name in ("sampled", "graded", "weighed", "steps"))
    verify(parts_of_run(run))


def test_a_round_that_costs_accuracy_is_not_kept_and_the_one_before_is_the_result(first, tmp_path, monkeypatch):
    run = copied(first[0], tmp_path / "run")
    monkeypatch.setattr(rounds, "fallen", lambda result: {"level 2": None} if result.model == "round 2" else {})
    job(run, *FLAGS, "--rounds=3")
    assert [(t["round"], t["kept"]) for t in told(run)] == [(1, True), (2, False)]
    assert weights_of(run) == weights_of(run / "round-1")
    assert not (run / "round-3").exists() and "made in" not in (run / "model" / "README.md").read_text()


def test_where_accuracy_falls_in_the_first_round_no_other_follows(first, tmp_path, monkeypatch, capfd):
    run = copied(first[0], tmp_path / "run")
    monkeypatch.setattr(rounds, "fallen", lambda result: {"all problems": None})
    job(run, *FLAGS)
    assert [(t["round"], t["kept"], t["fell"]) for t in told(run)] == [(1, True, {"base": ["all problems"]})]
    assert weights_of(run) == weights_of(run / "round-1")
    assert "round 1 of 2: kept, and the last: accuracy fell against base: all problems" in capfd.readouterr().err


def test_a_changed_setting_may_set_the_work_of_rounds_aside_by_name(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    flags = [*FLAGS, "--method.lam=3", "--rounds=2"]  # which no program depends on
    with pytest.raises(BadInput, match="--restart=training"):
        job(run, *flags)
    assert job(run, *flags, restart="training")["steps"] and (run / "round-1" / "set_aside").is_dir()
    assert [t["kept"] for t in told(run)] == [True, True] and (run / "round-2" / "set_aside" / "1" / "pool").is_dir()


def test_later_rounds_may_be_held_against_the_model_before_all_of_them(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    counts = job(run, *FLAGS, "--reference=first", restart="training")
    assert (counts["weighed"], counts["loaded"]) == (1, 0) and counts["steps"]  # the first round stays as it is
    means = [
        {row["problem_id"]: (row["ref_mean_len"], row["ref_acc"]) for row in rows if row["ref_acc"] is not None}
        for rows in (read_weights(run / f"round-{n}" / "weights").read().to_pylist() for n in (1, 2))
    ]
    assert means[0] == means[1]
    assert "these are the model before all of them" in (run / "model" / "README.md").read_text()


def test_each_round_may_have_its_own_part_of_the_problems(tmp_path):
    cfg = configuration(tmp_path / "run", "--rounds=3", "--fresh_problems=True", "--problems.limit_train=40")
    source = find_model("embedded")
    of_rounds = [rounds._of_round(cfg, number, source) for number in (1, 2, 3)]
    parts = [{p.problem_id for p in training_problems(own.problems)} for own in of_rounds]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 40 and all(parts)
    assert not any(own.fresh_problems for own in of_rounds)
    for flags, named in {
        ("--reference=first",): r"fresh_problems=True: reference=first needs the first model's solutions",
        (
            "--problems.parts=2",
        ): r"fresh_problems=True: splits the problems by rounds; set fresh_problems=False, or leave",
    }.items():
        with pytest.raises(BadInput, match=named):
            configuration(tmp_path / "run", "--rounds=3", "--fresh_problems=True", *flags)


def test_samples_drawn_before_are_those_of_the_first_round_and_a_pool_beside_the_run_may_hold_them(tmp_path):
    with counting() as counts:
        for number, beside in enumerate(((), (f"--pool={tmp_path / 'pool'}",)), 1):
            cfg = configuration(tmp_path / "run", *FLAGS, "--fresh_problems=True", *beside)
            samples_only(cfg)
            inputs = preflight(cfg, ("train",))  # which a pool of other problems would not pass
            own = rounds._of_round(cfg, 1, inputs.source)
            part = {p.problem_id for p in training_problems(own.problems)}
            assert len(inputs.train.problems) == 16 and 0 < len(part) < 16
            pool = weighed_samples(own, preflight(own, ("train",)), Path(own.run))
            assert set(pool.problems.read(["problem_id"])["problem_id"].to_pylist()) == part
            assert counts["sampled"] == number * len(part) * 4  # by samples_only, and not again


def test_no_problem_held_out_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"batch.hold_out=0.001: holds out none of 16 problems; raise it"):
        job(tmp_path / "run", *FLAGS, "--batch.hold_out=0.001")
