"""The job as a user meets it: real processes, the embedded model, a few problems."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from commands import launch
from small_job import SMALL

from o1p_jax.config.saved import save_config
from o1p_jax.config.tree import ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.evaluate import evaluate
from o1p_jax.stages.pipeline import preflight

SETS = ["embedded:test", "embedded:validation"]
JOB = [*SMALL, "--mesh=8x1", "--problems.test", *SETS]
"""As README has it, but on two test sets."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    run = tmp_path_factory.mktemp("job") / "run"
    return run, launch("train.py", f"--run={run}", *JOB)


@pytest.mark.slow
def test_the_whole_job(finished):
    run, done = finished
    assert done.returncode == 0, done.stderr
    assert "8 simulated devices" in done.stderr
    for word in ("before", "after", "accuracy", "AES", str(run / "model"), str(run / "evaluation" / "report.html")):
        assert word in done.stdout
    assert "of the token slots that training computed held a token" in done.stdout
    assert "Before and after" in (run / "model" / "README.md").read_text()
    report = json.loads((run / "evaluation" / "report.json").read_text())
    facts, shown = report["facts"], [(result["problem_set"], result["model"]) for result in report["results"]]
    assert shown == [(name, model) for name in SETS for model in ("before", "after")]
    assert list(report["results"][0]["overall"]["at_budget"]) == ["16", "32", "64", "128"]
    card = (run / "model" / "README.md").read_text()
    for name in SETS:
        assert f"{name}: 4 problems" in done.stdout and f"{name}: 4 problems" in card
    for told in ("none of the 4 test problems stands among the 8 training problems", "after: accuracy fell beyond its"):
        assert done.stdout.count(told) == card.count(told) == 2
    assert facts["base model"] == "embedded" and facts["after, training steps"] == "8"
    assert facts["after, time of the steps"].endswith(" min") and "after, tokens trained on" in facts
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(0 < line["mismatch_mean"] < 1e-5 and line["mismatch_tenth"] == 0 for line in lines)
    assert "sampler and trainer differ by" in done.stderr and "nats" in facts["after, sampler and trainer differ by"]


@pytest.mark.slow
def test_nothing_is_done_twice(finished):
    run, _ = finished

    def times() -> dict[Path, int]:
        stages = ("pool", "weights", "checkpoints", "evaluation")
        return {f: f.stat().st_mtime_ns for stage in stages for f in (run / stage).rglob("*") if f.is_file()}

    before = times()
    again = launch("train.py", f"--run={run}", *JOB)
    assert again.returncode == 0, again.stderr
    assert times() == before
    assert len(before) > 20


@pytest.mark.slow
def test_another_config_in_the_same_folder_is_refused(finished):
    run, _ = finished
    refused = launch("train.py", f"--run={run}", *JOB, "--method.lam=5")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "method.lam=5.0 instead of 4.5 would throw away the training (step 8 of 8)" in refused.stderr
    assert "--restart=training" in refused.stderr


@pytest.mark.slow
def test_export_and_evaluate_by_themselves(finished, tmp_path):
    run, _ = finished
    exported = launch("export.py", f"--run={run}", f"--out={tmp_path / 'hf'}", "--step=8")
    assert exported.returncode == 0, exported.stderr
    name = "model.safetensors"
    assert (tmp_path / "hf" / name).read_bytes() == (run / "model" / name).read_bytes()
    done = launch("evaluate.py", "--models", "embedded", tmp_path / "hf", run, "--problems", "embedded:validation",
                  "embedded:test", f"--out={tmp_path / 'evaluation'}", "--evaluation.aes_as_printed=True",
                  *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "embedded:validation" in done.stdout
    assert done.stdout.count("none of the 4 test problems stands among the 8 training problems of run, by text") == 2
    assert done.stdout.count("overlap: not looked at for embedded, hf, whose training problems are not at hand") == 2
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert report["facts"]["AES"] == "as the paper printed it"
    assert [(r["model"], r["problem_set"]) for r in report["results"]] == [
        (m, s) for s in ("embedded:validation", "embedded:test") for m in ("embedded", "hf", "run")
    ]


def _model(tmp_path: Path, **changes) -> str:
    """A copy of the embedded model with entries of its config.json changed."""
    folder = tmp_path / "model"
    shutil.copytree(resolve_model("embedded"), folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _rows(tmp_path: Path, *rows: dict) -> str:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _only_bin(tmp_path: Path) -> str:
    folder = Path(_model(tmp_path))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return str(folder)


def _foreign_tokenizer(tmp_path: Path) -> str:
    from transformers import AutoTokenizer

    folder = _model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(100)])
    tokenizer.save_pretrained(folder)
    return folder


FOREIGN = {"problem": "What is <extra99>?", "answer": "1"}
BAD = {
    "mesh does not divide heads": (lambda t: {"mesh": "1x3"}, "num_attention_heads"),
    "mesh does not divide the width": (lambda t: {"mesh": "48x1"}, "hidden_size"),
    "missing model": (lambda t: {"model": str(t / "none")}, "no such folder"),
    "unknown hub name": (lambda t: {"model": "nobody/nothing"}, "nobody/nothing"),
    "bin weights": (lambda t: {"model": _only_bin(t)}, "safetensors"),
    "auto_map": (lambda t: {"model": _model(t, auto_map={"AutoModel": "x.Y"})}, "auto_map"),
    "unknown family": (lambda t: {"model": _model(t, model_type="rwkv")}, "rwkv"),
    "wrong shape": (lambda t: {"model": _model(t, intermediate_size=392)}, "shape"),
    "token beyond the vocabulary": (
        lambda t: {"model": _foreign_tokenizer(t), "problems": ProblemConfig(train=_rows(t, FOREIGN))}, "<extra99>"),
    "empty problem set": (lambda t: {"problems": ProblemConfig(train=_rows(t))}, "no problems"),
    "row without answer": (
        lambda t: {"problems": ProblemConfig(train=_rows(t, {"problem": "1+1?", "answer": ""}))}, "row 1"),
    "missing column": (lambda t: {"problems": ProblemConfig(train=_rows(t, {"question": "1+1?"}))}, "question"),
    "long prompt": (lambda t: {"problems": ProblemConfig(max_prompt_tokens=20)}, "max_prompt_tokens"),
    "solutions beyond the context": (lambda t: {}, "sampling.max_tokens=8192: with the longest prompt of embedded"),
    "tests beyond the context": (
        lambda t: {"sampling": SamplingConfig(max_tokens=99)}, "and the context of model=embedded has 2048"),
    "no file": (lambda t: {"problems": ProblemConfig(test="none.jsonl")}, "none.jsonl"),
    "run in the model": (lambda t: {"model": _model(t), "run": str(t / "model" / "run")}, "which is only read"),
    "run above the model": (lambda t: {"model": _model(t), "run": str(_started(t))}, "which is only read"),
    "run is the model": (lambda t: {"model": _model(t), "run": str(t / "model")}, "not a run"),
    "pool in the model": (lambda t: {"model": _model(t), "pool": str(t / "model" / "pool")}, "pool="),
    "run folder of someone else": (lambda t: {"run": str(_occupied(t))}, "not a run folder"),
}  # fmt: skip


def _occupied(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    return tmp_path / "run"


def _started(tmp_path: Path) -> Path:
    """A folder that holds a run's config.json, and the model too."""
    save_config(tmp_path / "config.json", RunConfig(run=str(tmp_path)), None)
    return tmp_path


def test_an_evaluation_is_not_written_into_a_model(tmp_path):
    model = _model(tmp_path)
    for out in (Path(model), Path(model) / "evaluation", tmp_path):
        with pytest.raises(BadInput, match=r"out=.* is, holds or lies in a model"):
            evaluate(RunConfig(), ["embedded", model], ["embedded:test"], out)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_written(name, tmp_path):
    change, message = BAD[name]
    cfg = RunConfig(run=str(tmp_path / "run"))
    with pytest.raises(BadInput) as error:
        preflight(replace(cfg, **change(tmp_path)), ("train", "test"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "flag", ["--optim.lerning_rate=1", "--mesh=9x1", "--sampling.samples_per_problem=0", "--model=x/y"]
)
def test_bad_flags_end_with_exit_code_2_and_one_line(flag, tmp_path):
    refused = launch("train.py", f"--run={tmp_path / 'run'}", flag)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1 and refused.stderr.startswith("error: ")
    assert not (tmp_path / "run").exists()
