"""Presampling: the same rows however often it is killed, and nothing written when the input is bad."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import environment
from drive_presample import FakeSampler
from host import model_folder, problem_file, run_config, source

from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import EvaluationConfig, ProblemConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import make_prompts
from o1p_jax.runtime.errors import BadInput, Preempted
from o1p_jax.runtime.files import write_json
from o1p_jax.runtime.signals import preemptible
from o1p_jax.stages.pool import evaluation_pool, pool_path, training_pool
from o1p_jax.stages.presample import SampleJob, presample, sample_seed

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests" / "helpers" / "drive_presample.py"


class Recorder(FakeSampler):
    """Remembers what it was asked."""

    def __init__(self):
        super().__init__(None)
        self.requests, self.closed = [], False

    def add(self, key, request):
        self.requests.append(request)
        super().add(key, request)

    def close(self):
        self.closed = True


@pytest.fixture
def config(tmp_path):
    folder = model_folder(tmp_path / "model")
    return run_config(problem_file(tmp_path / "p.jsonl", 10), run=str(tmp_path / "run"), model=str(folder))


def pool_of(cfg, digest="weights"):
    model = source(cfg, digest)
    problems = load_problems(cfg.problems.train, cfg.problems, cfg.problems.limit_train)
    prompts = make_prompts(model.folder, problems, cfg.problems)
    return training_pool(cfg, model, prompts)


def job(cfg, *pools):
    paths = tuple(str(pool.path) for pool in pools or [pool_of(cfg)])
    return SampleJob(
        title="train", pools=paths, folder=cfg.model, sampling=cfg.sampling, mesh=cfg.mesh, dtype=cfg.compute.dtype
    )


def run(cfg):
    sampler = Recorder()
    presample(job(cfg), make_sampler=made(sampler))
    return sampler


def made(sampler):
    """Stands for `make_sampler`: the sampler is told how it draws."""

    def make_sampler(config, folder, how, **_):
        sampler.how = how
        return sampler

    return make_sampler


def samples(cfg):
    return Pool(pool_path(cfg)).samples


def contents(cfg):
    return {p.name: p.read_bytes() for p in (Path(cfg.run) / "pool" / "samples").glob("part-*")}


def test_one_row_for_each_problem_and_sample(config):
    sampler = run(config)
    rows = Pool(pool_path(config)).read(["problem_id", "sample_idx", "prompt_ids", "seed", "finish_reason"]).to_pylist()
    problems = load_problems(config.problems.train, config.problems)
    assert [(r["problem_id"], r["sample_idx"]) for r in rows] == [(p.problem_id, k) for p in problems for k in range(4)]
    assert [tuple(r["prompt_ids"]) for r in rows] == [request.prompt_ids for request in sampler.requests]
    assert [r["seed"] for r in rows] == [request.seed for request in sampler.requests]
    assert len({r["seed"] for r in rows}) == 40 and {r["finish_reason"] for r in rows} == {"stop", "length"}
    assert sampler.how.stop_ids == (2,) and sampler.how.max_tokens == 12 and sampler.closed


def test_of_training_problems_the_first_samples_log_probabilities_are_kept(config):
    run(config)
    for row in samples(config).read().to_pylist():
        assert row["logprobs"] == (None if row["sample_idx"] else [-0.5] * len(row["completion_ids"]))
    model, problems = source(config), load_problems(config.problems.train, config.problems)
    prompts = make_prompts(model.folder, problems, config.problems)
    pool = evaluation_pool(config, model, prompts, "test", Path(config.run) / "evaluation")
    sampler = Recorder()
    presample(job(config, pool), make_sampler=made(sampler))
    assert sampler.requests and not any(request.logprobs for request in sampler.requests)


def test_seeds_depend_on_run_seed_problem_and_sample_alone(config):
    run(config)
    rows = samples(config).read().to_pylist()
    assert all(r["seed"] == sample_seed(0, r["problem_id"], r["sample_idx"]) for r in rows)
    assert sample_seed(0, "a", 1) != sample_seed(1, "a", 1) and 0 <= sample_seed(0, "a", 1) < 2**31


def test_seeds_that_the_sampler_did_not_draw_by_are_not_recorded(config):
    class OneSeed(Recorder):
        seeds_each = False

        def add(self, key, request):
            super().add(key, request)
            assert len({number // 16 for number, _ in self.waiting}) == 1

    presample(job(config), make_sampler=made(OneSeed()))
    assert set(samples(config).read(["seed"])["seed"].to_pylist()) == {None}


def test_the_samples_may_have_a_seed_of_their_own(config):
    run(config)
    before = contents(config)
    other = replace(config, seed=7, sampling=replace(config.sampling, seed=0))
    assert run(other).requests == [] and contents(other) == before


def test_evaluation_uses_its_own_parameters_and_a_pool_for_each_model(config, tmp_path):
    cfg = replace(config, evaluation=EvaluationConfig(samples_per_problem=2, temperature=0.7, max_tokens=5))
    prompts = make_prompts(Path(cfg.model), load_problems(cfg.problems.test[0], cfg.problems, None), cfg.problems)
    pools = [evaluation_pool(cfg, source(cfg, digest), prompts, "m", tmp_path) for digest in ("a", "b", "a")]
    assert pools[0].path == pools[2].path != pools[1].path
    sampler = Recorder()
    presample(job(cfg, pools[0]), make_sampler=made(sampler))
    assert len(sampler.requests) == 20
    assert (sampler.how.temperature, sampler.how.max_tokens) == (0.7, 5)


def test_a_complete_pool_needs_no_sampler_and_a_lost_shard_comes_back_the_same(config):
    run(config)
    before = contents(config)
    assert run(config).requests == []
    samples(config).shard_path(1).unlink()
    assert len(run(config).requests) == 16
    assert contents(config) == before


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (None, {"seed": 1}, r"sampling\.seed=0, not 1"),
        ("sampling", {"max_tokens": 13}, r"sampling\.max_tokens=12, not 13"),
        ("sampling", {"samples_per_problem": 5}, r"samples_per_problem=4, not 5"),
        ("sampling", {"temperature": 0.5}, r"temperature=1\.0, not 0\.5"),
        ("compute", {"dtype": "float32"}, r"compute\.dtype=bfloat16, not float32"),
        ("problems", {"system_prompt": "Be brief."}, "prompts_sha256"),
        ("problems", {"limit_train": 3}, "problems_sha256"),
    ],
)
def test_samples_that_were_made_otherwise_are_refused(config, part, changes, message):
    run(config)
    changed = replace(config, **(changes if part is None else {part: replace(getattr(config, part), **changes)}))
    with pytest.raises(BadInput, match=message):
        run(changed)


@pytest.mark.parametrize("changes", [{"slots": 3}, {"problems_per_shard": 2}, {"servers": ("http://a",)}])
def test_what_samples_do_not_depend_on_may_change(config, changes):
    run(config)
    assert run(replace(config, sampling=replace(config.sampling, **changes))).requests == []


def test_another_models_samples_are_refused(config):
    run(config)
    with pytest.raises(BadInput, match="model_sha256"):
        pool_of(config, digest="others")


def test_nothing_is_written_on_bad_input(config):
    for problems in (ProblemConfig(train="missing.jsonl"), replace(config.problems, max_prompt_tokens=3)):
        with pytest.raises(BadInput):
            run(replace(config, problems=problems))
        assert not Path(config.run).exists()


@pytest.mark.parametrize("most", [1, 2, 8])
def test_a_shard_is_claimed_only_when_there_is_room_for_it(config, most):
    class Watched(Recorder):
        def step(self):
            claimed = len(list(samples(config).path.glob("*.claim")))
            assert claimed == len({number // 16 for number, _ in self.waiting}) <= most
            self.most = max(self.most, claimed)
            return super().step()

    sampler = Watched()
    sampler.most = 0
    few = replace(config, sampling=replace(config.sampling, shards_in_flight=most))
    presample(job(few), make_sampler=made(sampler))
    assert sampler.most == min(most, 3)  # of its few slots, some hold stragglers
    run(replace(config, run=f"{config.run}_other"))
    other = {p.name: p.read_bytes() for p in Path(f"{config.run}_other/pool/samples").glob("part-*")}
    assert contents(config) == other


def test_several_pools_of_a_model_are_sampled_by_one_sampler_without_a_pause(config, tmp_path):
    def pools(folder):
        files = [problem_file(tmp_path / f"{count}.jsonl", count) for count in (5, 2, 9)]
        sets = [load_problems(str(file), config.problems, None) for file in files]
        made = [make_prompts(Path(config.model), of_set, config.problems) for of_set in sets]
        return [evaluation_pool(config, source(config), p, str(i), tmp_path / folder) for i, p in enumerate(made)]

    def written(pools):
        return [[path.read_bytes() for path in sorted(pool.samples.path.glob("part-*"))] for pool in pools]

    class Kept(Recorder):
        def step(self):
            full = self.room == 0 or len(self.requests) == total
            self.kept_full = getattr(self, "kept_full", True) and full
            return super().step()

    alone = pools("alone")
    for pool in alone:
        presample(job(config, pool), make_sampler=made(Recorder()))
    together, total = pools("together"), sum(pool.read(["seed"]).num_rows for pool in alone)
    others = set(together[1].samples.missing_shards())
    for shard in others:  # a part of them was there already
        together[1].samples.write_shard(shard, alone[1].samples.read_shard(shard))
    total -= alone[1].read(["seed"]).num_rows
    sampler = Kept()
    presample(job(config, *together), make_sampler=made(sampler))
    assert len(sampler.requests) == total and sampler.kept_full
    assert written(together) == written(alone) and all(pool.complete for pool in together)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(config, tmp_path):
    """kill -9 of a real process at random moments, until 20 have hit; then the bytes of an undisturbed run."""
    many = replace(config, problems=replace(config.problems, train=str(problem_file(tmp_path / "q.jsonl", 60))))
    calm = replace(many, run=str(tmp_path / "calm"))
    assert start(calm, tmp_path).wait() == 0
    rng, kills = random.Random(0), 0
    while kills < 20:
        process, before = start(many, tmp_path), len(contents(many))
        while process.poll() is None and len(contents(many)) == before:
            time.sleep(0.01)  # until it is past the imports and writes
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None:
            process.kill()
            kills += 1
        if process.wait() == 0:  # it came to its end: take a few shards away, and go on killing
            assert contents(many) == contents(calm)
            for shard in rng.sample(range(15), 10):
                samples(many).shard_path(shard).unlink()
    assert start(many, tmp_path).wait() == 0
    assert contents(many) == contents(calm)


def start(cfg, folder):
    write_json(folder / "job.json", to_dict(job(cfg)))
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder / "job.json")],
        stderr=subprocess.DEVNULL,
        env=environment(ROOT),
    )


def test_sigterm_keeps_finished_shards(config):
    class Interrupted(Recorder):
        def step(self):
            if len(samples(config).missing_shards()) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step()

    with pytest.raises(Preempted, match="stopped by SIGTERM; run the same command"), preemptible():
        presample(job(config), make_sampler=made(Interrupted()))
    assert len(samples(config).missing_shards()) == 2
    assert not list(samples(config).path.glob("*.claim"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_sampling_process_needs_no_jax():
    """vLLM's environment may lack it."""
    code = "import sys, o1p_jax.stages.presample; print({'jax', 'flax', 'torch', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
