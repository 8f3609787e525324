"""Presampling: the same rows however often it is killed, and nothing written when the input is bad."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from drive_presample import FakeSampler
from host import model_folder, problem_file, run_config

from o1p_jax.config.tree import EvaluationConfig, ProblemConfig, SamplingConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.runtime.errors import BadInput, Preempted
from o1p_jax.runtime.files import write_json
from o1p_jax.stages.presample import RolloutJob, presample, sample_seed

DRIVER = Path(__file__).parents[1] / "helpers" / "drive_presample.py"


class Recorder(FakeSampler):
    """Remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.requests, self.params, self.closed = [], [], False

    def sample(self, requests, params, on_done):
        self.requests += requests
        self.params.append(params)
        return super().sample(requests, params, on_done)

    def close(self):
        self.closed = True


@pytest.fixture
def job(tmp_path):
    config = run_config(problem_file(tmp_path / "p.jsonl", 10))
    return RolloutJob(config, "train", str(model_folder(tmp_path / "model")), str(tmp_path / "out"))


def run(job):
    sampler = Recorder()
    presample(job, make_sampler=lambda *_: sampler)
    return sampler


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).glob("part-*")}


def test_one_row_for_each_problem_and_sample(job):
    sampler = run(job)
    rows = RolloutFolder(job.out).read().to_pylist()
    problems = load_problems(job.config.problems.train, job.config.problems)
    assert [(r["problem_id"], r["sample_idx"]) for r in rows] == [(p.problem_id, k) for p in problems for k in range(4)]
    assert [tuple(r["prompt_ids"]) for r in rows] == [request.prompt_ids for request in sampler.requests]
    assert [r["seed"] for r in rows] == [request.seed for request in sampler.requests]
    assert len({r["seed"] for r in rows}) == 40 and all(r["pred"] is None and r["weight"] is None for r in rows)
    assert {r["finish_reason"] for r in rows} == {"stop", "length"}
    assert sampler.params[0].stop_ids == (2,) and sampler.params[0].max_tokens == 12 and sampler.closed


def test_seeds_depend_on_run_seed_problem_and_sample_alone(job):
    run(job)
    rows = RolloutFolder(job.out).read().to_pylist()
    assert all(r["seed"] == sample_seed(0, r["problem_id"], r["sample_idx"]) for r in rows)
    assert sample_seed(0, "a", 1) != sample_seed(1, "a", 1) and 0 <= sample_seed(0, "a", 1) < 2**31


def test_the_test_part_uses_the_evaluation_parameters(job):
    evaluation = EvaluationConfig(samples_per_problem=2, temperature=0.7, max_tokens=5)
    sampler = run(replace(job, part="test", config=replace(job.config, evaluation=evaluation)))
    assert len(sampler.requests) == 20
    assert (sampler.params[0].temperature, sampler.params[0].max_tokens) == (0.7, 5)


def test_a_complete_folder_needs_no_sampler_and_a_lost_shard_comes_back_the_same(job):
    run(job)
    before = contents(job.out)
    assert run(job).requests == []
    RolloutFolder(job.out).shard_path(1).unlink()
    assert len(run(job).requests) == 16
    assert contents(job.out) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "made with seed=0, not 1"),
        (
            {"sampling": SamplingConfig(samples_per_problem=4, problems_per_shard=4, max_tokens=13)},
            "max_tokens=12, not 13",
        ),
        (
            {"sampling": SamplingConfig(samples_per_problem=5, problems_per_shard=4, max_tokens=12)},
            "samples_per_problem=4",
        ),
        ({"revision": "v2"}, "revision=None, not v2"),
    ],
)
def test_other_parameters_in_the_same_folder_are_refused(job, changes, message):
    run(job)
    with pytest.raises(BadInput, match=message):
        run(replace(job, config=replace(job.config, **changes)))


def test_another_model_template_or_problem_set_in_the_same_folder_is_refused(job, tmp_path):
    run(job)
    other = model_folder(tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BadInput, match="model_sha256"):
        run(replace(job, model=str(other)))
    problems = job.config.problems
    with pytest.raises(BadInput, match="template_sha256"):
        run(replace(job, config=replace(job.config, problems=replace(problems, system_prompt="Be brief."))))
    with pytest.raises(BadInput, match="problems_sha256"):
        run(replace(job, config=replace(job.config, problems=replace(problems, limit_train=3))))


def test_nothing_is_written_on_bad_input(job):
    for problems in (ProblemConfig(train="missing.jsonl"), replace(job.config.problems, max_prompt_tokens=3)):
        with pytest.raises(BadInput):
            run(replace(job, config=replace(job.config, problems=problems)))
        assert not Path(job.out).exists()


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(job, tmp_path):
    """kill -9 of a real process at random moments, until 20 have hit; then the bytes of an undisturbed run."""
    problems = replace(job.config.problems, train=str(problem_file(tmp_path / "q.jsonl", 60)))
    calm = replace(job, config=replace(job.config, problems=problems), out=str(tmp_path / "calm"))
    assert start(calm, tmp_path).wait() == 0
    rng, kills = random.Random(0), 0
    while kills < 20:
        process, before = start(replace(calm, out=job.out), tmp_path), len(contents(job.out))
        while process.poll() is None and len(contents(job.out)) == before:
            time.sleep(0.01)  # until it is past the imports and writes
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None:
            process.kill()
            kills += 1
        if process.wait() == 0:  # it came to its end: take a few shards away, and go on killing
            assert contents(job.out) == contents(calm.out)
            for shard in rng.sample(range(15), 10):
                RolloutFolder(job.out).shard_path(shard).unlink()
    assert start(replace(calm, out=job.out), tmp_path).wait() == 0
    assert contents(job.out) == contents(calm.out)


def start(job, folder):
    write_json(folder / "job.json", asdict(job))
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder / "job.json")],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(DRIVER.parents[1])},
    )


def test_sigterm_keeps_finished_shards(job):
    class Interrupted(FakeSampler):
        calls = 0

        def sample(self, requests, params, on_done):
            self.calls += 1
            if self.calls == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().sample(requests, params, on_done)

    with pytest.raises(Preempted, match="stopped by SIGTERM; run the same command"):
        presample(job, make_sampler=lambda *_: Interrupted())
    assert RolloutFolder(job.out).missing_shards() == [1, 2]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
