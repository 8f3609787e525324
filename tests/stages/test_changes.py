"""What a changed configuration does again in the same folder, counted: what depends on it, nothing by mistake."""

import json
from pathlib import Path

import pytest
from counted_job import STEPS, TEST, TRAIN, configuration, copied, counting, job, unfinish

from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.pipeline import samples_only

pytestmark = pytest.mark.slow
DIGESTS = 2 + 6
"""Files whose digests a job needs, each once: config.json and weights of the model, all that loads of its export."""


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run, which is only read, and what was counted."""
    home = tmp_path_factory.mktemp("changes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield home / "run", job(home / "run")


def test_the_whole_job_finds_each_model_once_and_does_everything_once(first):
    _, counts = first
    assert counts["models"] == 2  # the one it starts from, and its own result
    assert counts["digests"] == DIGESTS
    assert (counts["sampled"], counts["graded"]) == (TRAIN + 2 * TEST, TRAIN + 2 * TEST)
    assert (counts["weighed"], counts["steps"]) == (1, STEPS)


def test_a_start_with_nothing_to_do_reads_and_hashes_nothing(first, capsys):
    run, _ = first
    written = ("config.json", "README.md")
    before = {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file() and f.name not in written}
    counts = job(run)
    assert {name: n for name, n in counts.items() if n} == {"models": 2, "digests": DIGESTS}
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert "AES" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--compute.remat=full", "--batch.tokens_per_device=512", "--sampling.slots=8"])
def test_after_running_out_of_memory_the_remedy_goes_on_in_the_same_folder(first, tmp_path, flag):
    run = copied(first[0], tmp_path / "run")
    unfinish(run, step=2)
    counts = job(run, flag)
    assert (counts["weighed"], counts["steps"]) == (0, STEPS - 2)
    # Those of the result: other bits than before may come out, or the same.
    assert counts["sampled"] == counts["graded"]
    assert counts["sampled"] in (0, TEST)


def test_another_evaluation_evaluates_again_and_nothing_else(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    counts = job(run, "--evaluation.temperature=0.5")
    assert (counts["sampled"], counts["graded"], counts["weighed"], counts["steps"]) == (2 * TEST, 2 * TEST, 0, 0)
    assert job(run)["sampled"] == 0  # the first evaluation's samples have stayed


@pytest.mark.parametrize("flag", ["--evaluation.bootstrap=50", "--evaluation.aes_as_printed=True"])
def test_another_report_of_the_same_samples(first, tmp_path, flag):
    run = copied(first[0], tmp_path / "run")
    counts = job(run, flag)
    assert (counts["sampled"], counts["graded"], counts["steps"]) == (0, 0, 0)
    assert (run / "evaluation/report.json").read_bytes() != (first[0] / "evaluation/report.json").read_bytes()


LOSING = {
    "--optim.learning_rate=1e-6": ("training", "optim.learning_rate=1e-06 instead of 0.0002", 0),
    "--method.lam=1": ("training", "method.lam=1.0 instead of 4.5", 0),
    "--grading.timeout_s=6": ("training", "grading.timeout_s=6 instead of 5", TRAIN + TEST),
    "--sampling.temperature=0.9": ("samples", "sampling.temperature=0.9 instead of 1.0", TRAIN),
}
"""Changed field: the result whose work is lost, the reason that is told, samples graded again."""


@pytest.mark.parametrize("flag", LOSING)
def test_work_is_thrown_away_only_by_name_and_set_aside(first, tmp_path, flag):
    stage, reason, graded = LOSING[flag]
    run = copied(first[0], tmp_path / "run")
    before = {f.relative_to(run) for f in run.rglob("*")}
    with pytest.raises(BadInput) as refused:
        job(run, flag)
    assert reason in str(refused.value) and f"--restart={stage}" in str(refused.value)
    assert "the training (step 4 of 4)" in str(refused.value) and "\n" not in str(refused.value)
    wrong = "samples" if stage == "training" else "training"
    with pytest.raises(BadInput, match=f"say --restart={stage}"):
        job(run, flag, restart=wrong)
    assert {f.relative_to(run) for f in run.rglob("*")} == before and not (run / "set_aside").exists()

    counts = job(run, flag, restart=stage)
    assert (counts["weighed"], counts["steps"]) == (1, STEPS)  # the weights were set aside with the training
    assert counts["sampled"] - (TRAIN if stage == "samples" else 0) in (0, TEST)
    assert counts["graded"] - graded in (0, TEST)
    assert (run / "set_aside/1/checkpoints/00000004").is_dir() and (run / "set_aside/1/model").is_dir()
    assert (run / "set_aside/1/pool").exists() == (stage == "samples")
    again = job(run, flag, restart=stage)  # as a preempted job's command is given again
    assert {name for name, n in again.items() if n} == {"models", "digests"}


def test_two_runs_from_one_pool_sample_and_grade_once(first, tmp_path):
    pool = f"--pool={tmp_path / 'pool'}"
    with counting() as made:
        samples_only(configuration(tmp_path / "none", pool))
    assert (made["sampled"], made["graded"], made["weighed"]) == (TRAIN, TRAIN, 0) and not (tmp_path / "none").exists()
    one = job(tmp_path / "one", pool)
    two = job(tmp_path / "two", pool, "--method.lam=1")
    assert (one["sampled"], one["graded"]) == (2 * TEST, 2 * TEST)
    assert (two["sampled"], two["graded"], two["weighed"], two["steps"]) == (2 * TEST, 2 * TEST, 1, STEPS)
    assert not (tmp_path / "one" / "pool").exists() and not (tmp_path / "two" / "pool").exists()
    digests = [(tmp_path / name / "digest.txt").read_text() for name in ("one", "two")]
    assert digests[0] == (first[0] / "digest.txt").read_text() != digests[1]
    with pytest.raises(BadInput, match=r"pool.*sampling\.temperature=1\.0, not 0\.9"):
        job(tmp_path / "three", pool, "--sampling.temperature=0.9", restart="samples")
    assert not (tmp_path / "three").exists()
    third = job(tmp_path / "four", pool, "--seed=1", "--sampling.seed=0")
    assert third["sampled"] == 2 * TEST


def test_samples_of_other_weights_are_refused_before_training(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    model = copied(Path(__file__).parents[2] / "o1p_jax/embedded/model", tmp_path / "model")
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(BadInput, match="a change of the model's weights would throw away the samples"):
        job(run, f"--model={model}")


def test_the_same_weights_in_another_folder_go_on(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    model = copied(Path(__file__).parents[2] / "o1p_jax/embedded/model", tmp_path / "model")
    counts = job(run, f"--model={model}")
    assert (counts["sampled"], counts["steps"]) == (0, 0)


def test_the_folder_of_an_older_version_is_refused_by_name(first, tmp_path):
    run = copied(first[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    del config["format"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="one of an older version of this program; name another folder"):
        job(run)


def test_restart_takes_the_names_of_results_alone(first):
    with pytest.raises(BadInput, match="--restart=everything: must be samples or training"):
        job(first[0], restart="everything")
