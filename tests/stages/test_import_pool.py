"""Pools in from other programs and out as data sets, with the embedded model's own tokenizer."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from o1p_jax.config.imports import ImportConfig
from o1p_jax.config.tree import GradingConfig, RunConfig
from o1p_jax.data.embedded import embedded_problems
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import Prompter
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import identity
from o1p_jax.stages import import_pool as module
from o1p_jax.stages.export_pool import export_pool
from o1p_jax.stages.grade import grade
from o1p_jax.stages.import_pool import import_pool
from o1p_jax.stages.pool import check_imported, imported_pool
from o1p_jax.stages.weigh import weigh

ROOT = Path(__file__).parents[2]
PROMPTER = Prompter(resolve_model("embedded"))
PROBLEMS = embedded_problems("train")[:5]
END = PROMPTER.eos_ids[0]
EXPORTED = ("problem_id", "problem", "answer", "level", "source", "split", "prompt_ids", "sample_idx", "seed",
            "completion", "completion_ids", "finish_reason")  # fmt: skip


def ids_of(text: str) -> list[int]:
    return PROMPTER._tokenizer(text, add_special_tokens=False)["input_ids"]


def row(number: int, k: int, **changes) -> dict:
    """A solution of a problem, right for even k; some were cut off."""
    problem = PROBLEMS[number]
    ids = ids_of(f"{'1 ' * (number + k)}\\boxed{{{problem.answer if k % 2 == 0 else '1'}}}")
    ids += [END] if k != 3 else []
    return {
        "problem": problem.problem, "answer": problem.answer, "level": problem.level, "source": problem.source,
        "split": problem.split, "prompt_ids": list(PROMPTER.prompt_ids(problem)), "seed": 10 * number + k,
        "completion": PROMPTER.decode(ids), "completion_ids": ids, "finish_reason": "length" if k == 3 else "stop",
    } | changes  # fmt: skip


def rows(samples: int = 4) -> list[dict]:
    """Round by round over the problems, as a trainer that goes through them several times would write them."""
    return [row(number, k) for k in range(samples) for number in range(len(PROBLEMS))]


def write(path: Path, table: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in table))
    return path


def bring(folder: Path, table: list[dict], name: str = "pool", **fields) -> Pool:
    if table:
        fields["rollouts"] = (str(write(folder / f"{name}.jsonl", table)),)
    config = {"problems_per_shard": 2, "model": "embedded", "pool": str(folder / name)}
    return import_pool(ImportConfig(**config | fields))


def refused(folder: Path, table: list[dict], **fields) -> str:
    with pytest.raises(BadInput) as e:
        bring(folder, table, **fields)
    assert "\n" not in str(e.value) and not (folder / "pool").exists()
    assert not list(folder.glob(".pool*"))  # nothing half made is left
    return str(e.value)


def run_config(pool: Pool, **fields) -> RunConfig:
    return RunConfig(pool=str(pool.path), method=O1PrunerParams(m=4), **fields)


def contents(pool: Pool) -> list[dict]:
    return pool.read(EXPORTED).to_pylist()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return bring(tmp_path_factory.mktemp("imported"), rows())


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
    problems = replace(RunConfig().problems, max_prompt_tokens=10)
    with pytest.raises(BadInput, match=r"raise problems\.max_prompt_tokens=10"):
        check_imported(run_config(imported, problems=problems), imported)


def test_an_imported_pool_of_another_model_or_with_files_gone_is_refused(tmp_path):
    pool, source = bring(tmp_path, rows()), find_model("embedded")
    with pytest.raises(BadInput, match="imported as those of embedded"):
        imported_pool(run_config(pool), replace(source, digest="other", name="other"))
    pool.samples.shard_path(1).unlink()
    with pytest.raises(BadInput, match="1 files are gone; import again"):
        imported_pool(run_config(pool), source)


def graded(pool: Pool, run: Path) -> Path:
    """Grades the pool, and weighs it for a run."""
    cfg = run_config(pool)
    grades = grade(pool, cfg.grading)
    weigh(pool, grades, cfg.method, 0, identity.of_weights(cfg, pool.identity), run / "weights")
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


def launch(name: str, *argv: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "launch" / name, *map(str, argv)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


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


@pytest.mark.slow
def test_the_whole_job_from_a_pool_that_went_out_and_came_in_again(tmp_path):
    small = ["--problems.limit_train=4", "--problems.limit_test=2", "--sampling.samples_per_problem=4",
             "--method.m=4", "--sampling.slots=16", "--sampling.max_tokens=96", "--evaluation.max_tokens=96",
             "--evaluation.samples_per_problem=1", "--batch.sequences=8", "--batch.row_length=256"]  # fmt: skip
    first, second, out, pool = (tmp_path / name for name in ("first", "second", "out", "pool"))
    for name, *argv in [
        ("presample.py", f"--run={first}", *small),
        ("export_pool.py", f"--run={first}", f"--out={out}"),
        ("import_pool.py", "--rollouts", out / "data" / "train-00000-of-00001.parquet", "--model=embedded",
         f"--pool={pool}"),
        ("train.py", f"--run={second}", f"--pool={pool}", "--mesh=8x1", *small),
    ]:  # fmt: skip
        done = launch(name, *argv)
        assert done.returncode == 0, done.stderr
    assert "brings its own 4 problems with 4 to 4 samples" in done.stderr and "presample train" not in done.stderr
    columns = ["problem_id", "sample_idx", "completion_ids"]
    assert Pool(pool).read(columns) == Pool(first / "pool").read(columns)
    card = (second / "model" / "README.md").read_text()
    assert "imported from 1 file(s) in format `jsonl`" in card and "could not be" in card
    assert "sampling." not in card and "embedded:train" not in card and str(tmp_path) not in card
    digest = (second / "digest.txt").read_text()
    assert launch("train.py", f"--run={second}", f"--pool={pool}", "--mesh=8x1", *small).returncode == 0
    assert (second / "digest.txt").read_text() == digest
