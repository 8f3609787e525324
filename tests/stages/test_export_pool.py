"""Pools out as data sets, read back by us and by the `datasets` library."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counted_job import counting
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_pools import EXPORTED, bring, contents, rows, run_config, write
from small_job import SMALL

from o1p_jax.commands import export_pool as commands_export_pool
from o1p_jax.commands import import_pool as commands_import_pool
from o1p_jax.commands import presample, train
from o1p_jax.config.saved import CONFIG, save_config
from o1p_jax.config.tree import GradingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import identity
from o1p_jax.stages.export_pool import export_pool
from o1p_jax.stages.grade import grade
from o1p_jax.stages.weigh import weigh


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return bring(tmp_path_factory.mktemp("imported"), rows())


def graded(pool: Pool, run: Path) -> Path:
    """Grades the pool, and weighs it for a run."""
    cfg = run_config(pool)
    grades = grade(pool, cfg.grading)
    weigh(pool, grades, cfg.training, identity.of_weights(cfg, pool.identity), run / "weights")
    return run


def test_the_way_out_and_in_again_changes_nothing(imported, tmp_path):
    export_pool(imported.path, tmp_path / "out")
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [f.name for f in files] == [f"train-{i:05}-of-00003.parquet" for i in range(3)]
    assert pq.read_schema(files[0]).names == list(EXPORTED)
    again = bring(tmp_path, [], rollouts=tuple(map(str, files)))
    assert contents(again) == contents(imported) and again.identity == imported.identity
    lines = write(tmp_path / "lines.jsonl", pa.concat_tables(map(pq.read_table, files)).to_pylist())
    assert bring(tmp_path, [], name="of lines", rollouts=(str(lines),)).identity == imported.identity


def test_nothing_is_written_into_the_pool(imported):
    for out in (imported.path, imported.path / "data", imported.path.parent):
        with pytest.raises(BadInput, match="is, holds or lies in the pool"):
            export_pool(imported.path, out)


@given(samples=st.integers(1, 4), text=st.booleans(), shard=st.integers(1, 6))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_pool_comes_back_as_it_was(tmp_path_factory, samples, text, shard):
    folder = tmp_path_factory.mktemp("round")
    table = [r if text else r | {"problem": None} for r in rows(samples)]
    pool = bring(folder, table, problems_per_shard=shard)
    export_pool(pool.path, folder / "out")
    files = tuple(str(f) for f in sorted((folder / "out" / "data").iterdir()))
    again = bring(folder, [], name="again", rollouts=files, problems_per_shard=3)
    assert contents(again) == contents(pool)


def test_an_export_has_grades_and_weights(tmp_path):
    pool = bring(tmp_path, rows())
    run = graded(pool, tmp_path / "run")
    export_pool(pool.path, tmp_path / "out", run)
    table = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert list(table[0]) == [*EXPORTED, "pred", "grade", "reward", "weight"]
    assert [r["grade"] == "correct" for r in table] == [r["sample_idx"] % 2 == 0 for r in table]
    assert all(r["weight"] is not None and r["reward"] > 0 for r in table if r["grade"] == "correct")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "graded by math-verify" in card and "the run `run`" in card and "| `weight` |" in card
    assert "imported from format `jsonl`" in card and "\nlicense" not in card
    assert str(tmp_path) not in card


def test_of_several_gradings_one_is_chosen(tmp_path, capsys):
    pool = bring(tmp_path, rows())
    run = graded(pool, tmp_path / "run")
    other = grade(pool, GradingConfig(timeout_s=7))
    with pytest.raises(BadInput, match=r"graded in 2 ways .*choose with --grades"):
        export_pool(pool.path, tmp_path / "out")
    with pytest.raises(BadInput, match="grades=none-such: no such grades; there are"):
        export_pool(pool.path, tmp_path / "out", grades="none-such")
    export_pool(pool.path, tmp_path / "chosen", grades=other.path.name)
    export_pool(pool.path, tmp_path / "left out", grades="none")
    export_pool(pool.path, tmp_path / "the run's", run)
    names = {f: pq.read_schema(next((tmp_path / f / "data").iterdir())).names for f in ("chosen", "left out")}
    assert "grade" in names["chosen"] and "grade" not in names["left out"]
    made_from = json.loads((tmp_path / "the run's" / "o1p_jax.json").read_text())
    assert made_from["grades"]["grading.timeout_s"] == 5


def test_an_export_replaces_nothing(imported, tmp_path, capsys):
    out = tmp_path / "out"
    export_pool(imported.path, out)
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*")}
    export_pool(imported.path, out)
    assert "holds this pool already" in capsys.readouterr().err
    other = bring(tmp_path, rows(2))
    with pytest.raises(BadInput, match="exists and holds something else"):
        export_pool(other.path, out)
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*")} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="exists and holds something else"):
        export_pool(other.path, tmp_path / "mine")


def test_exports_that_can_not_be_made(imported, tmp_path):
    with pytest.raises(BadInput, match="--pool: missing"):
        export_pool(None, tmp_path / "out")
    with pytest.raises(BadInput, match="no pool here"):
        export_pool(tmp_path / "none", tmp_path / "out")
    with pytest.raises(BadInput, match="has no weights"):
        export_pool(imported.path, tmp_path / "out", tmp_path / "run")
    other = bring(tmp_path, rows(2))
    with pytest.raises(BadInput, match="its weights are of other samples"):
        export_pool(imported.path, tmp_path / "out", graded(other, tmp_path / "run"))
    other.samples.shard_path(0).unlink()
    with pytest.raises(BadInput, match="1 of 3 shards are not sampled yet"):
        export_pool(other.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_go_into_the_runs_model(imported, tmp_path):
    run, model = graded(imported, tmp_path / "run"), tmp_path / "model"
    model.mkdir()
    save_config(run / CONFIG, run_config(imported, model=str(model)), None)
    with pytest.raises(BadInput, match=r"out=.*: is, holds or lies in model="):
        export_pool(imported.path, model / "x", run)
    assert not list(model.iterdir())


def test_paths_of_the_machine_do_not_go_out(tmp_path):
    pool = bring(tmp_path, [r | {"source": str(tmp_path / "set.jsonl")} for r in rows()])
    export_pool(pool.path, tmp_path / "out")
    assert set(pq.read_table(tmp_path / "out" / "data")["source"].to_pylist()) == {"set.jsonl"}


def test_datasets_opens_an_export(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pool = bring(tmp_path, rows())
    run = graded(pool, tmp_path / "run")
    export_pool(pool.path, tmp_path / "out", run)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"].num_rows == 20
    assert loaded["train"].column_names == [*EXPORTED, "pred", "grade", "reward", "weight"]
    found = [{name: r[name] for name in EXPORTED} for r in loaded["train"]]
    assert found == contents(pool)
    loaded["train"].to_json(tmp_path / "theirs.jsonl")
    loaded["train"].to_parquet(tmp_path / "theirs.parquet")
    for suffix in ("jsonl", "parquet"):
        again = bring(tmp_path, [], name=suffix, rollouts=(str(tmp_path / f"theirs.{suffix}"),))
        assert again.identity == pool.identity


@pytest.mark.slow
def test_the_whole_job_from_a_pool_that_went_out_and_came_in_again(tmp_path, capsys):
    small = [*SMALL, "--problems.limit_train=4", "--problems.limit_test=2", "--evaluation.samples_per_problem=1",
             "--sampling.problems_per_shard=4"]  # fmt: skip
    first, second, out, pool = (tmp_path / name for name in ("first", "second", "out", "pool"))
    job = (train, f"--run={second}", f"--pool={pool}", *small)
    with counting() as made:
        for module, *argv in [
            (presample, f"--run={first}", *small),
            (commands_export_pool, f"--run={first}", f"--out={out}"),
            (commands_import_pool, "--rollouts", str(out / "data" / "train-00000-of-00001.parquet"), "--model=embedded",
             f"--pool={pool}"),
            job,
        ]:  # fmt: skip
            capsys.readouterr()
            module.command(argv)
    told = capsys.readouterr().err
    assert "brings its own 4 problems with 4 to 4 samples" in told and "presample train" not in told
    assert made["sampled"] == 4 * 4 + 2 * 2  # the pool's, and the test problems' of both models
    columns = ["problem_id", "sample_idx", "completion_ids"]
    assert Pool(pool).read(columns) == Pool(first / "pool").read(columns)
    card = (second / "model" / "README.md").read_text()
    assert "imported from 1 file(s) in format `jsonl`" in card and "could not be" in card
    assert "sampling." not in card and "embedded:train" not in card and str(tmp_path) not in card
    digest = (second / "digest.txt").read_text()
    with counting() as again:
        train.command([*job[1:]])
    assert (again["sampled"], again["steps"]) == (0, 0) and (second / "digest.txt").read_text() == digest
