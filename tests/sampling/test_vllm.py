"""Real vLLM: the offline engine and its server, greedy against transformers on a tiny random Qwen3."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from vllm_server import free_port, serving

import o1p_jax
from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import EvaluationConfig, ProblemConfig, RunConfig, SamplingConfig, VllmConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import make_prompts
from o1p_jax.data.records import Request
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput, Preempted, SamplerGone
from o1p_jax.sampling import vllm as vllm_engine
from o1p_jax.sampling.base import SamplingParams, sample
from o1p_jax.stages.pool import training_pool
from o1p_jax.stages.presample import SampleJob

GREEDY = SamplingParams(temperature=0.0, max_tokens=24, stop_ids=(3, 5))
DRAWN = SamplingParams(max_tokens=24, stop_ids=(3, 5))
SETTINGS = {"dtype": "float32", "kv_cache_gib": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random Qwen3 without a tokenizer: ids go in and come out."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            initializer_range=0.3,
            tie_word_embeddings=False,
            eos_token_id=3,
            bos_token_id=None,
            dtype=torch.float32,
        )
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    rng = np.random.default_rng(0)
    return [Request(tuple(rng.integers(6, 64, rng.integers(1, 40)).tolist()), seed=2**40 + i) for i in range(6)]


@pytest.fixture(scope="module")
def expected(folder, requests) -> list[tuple[int, ...]]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    outs = []
    for request in requests:
        prompt = torch.tensor([request.prompt_ids])
        with torch.no_grad():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=24,
                eos_token_id=[3, 5],
                pad_token_id=0,
            )
        outs.append(tuple(out[0, prompt.shape[1] :].tolist()))
    return outs


def logprobs_of(folder, prompt_ids, token_ids) -> list[float]:
    """transformers' log-probabilities of a completion's tokens, at temperature 1."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs_LV = model(torch.tensor([prompt_ids + token_ids])).logits[0].log_softmax(-1)
    return [float(logprobs_LV[len(prompt_ids) - 1 + i, token]) for i, token in enumerate(token_ids)]


def check(sampler, requests, expected):
    """A sampler that draws by GREEDY gives the expected tokens, and by DRAWN what each seed alone decides."""
    greedy = sample(sampler, requests)
    assert [c.token_ids for c in greedy] == expected
    assert [c.finish_reason for c in greedy] == ["stop" if ids[-1] in (3, 5) else "length" for ids in expected]
    assert sampler.tokens == sum(map(len, expected))
    sampler._how = DRAWN
    drawn = sample(sampler, requests)
    assert drawn == sample(sampler, requests[::-1])[::-1]
    assert drawn != greedy
    assert drawn != sample(sampler, [r._replace(seed=r.seed + 1) for r in requests])


@pytest.mark.vllm
@pytest.mark.slow
def test_offline_engine(folder, requests, expected):
    pytest.importorskip("vllm")
    sampler = vllm_engine.VllmSampler(folder, GREEDY, VllmConfig(**SETTINGS), max_length=144)
    assert sampler.version.startswith("vllm ")
    check(sampler, requests, expected)
    asked = [request._replace(logprobs=i % 2 == 0) for i, request in enumerate(requests)]
    for request, got in zip(asked, sample(sampler, asked), strict=True):
        assert (got.logprobs is not None) == request.logprobs
        if got.logprobs is not None:
            np.testing.assert_allclose(got.logprobs, logprobs_of(folder, request.prompt_ids, got.token_ids), atol=1e-4)
    # More prompt tokens than one engine step takes: seeded requests must wait for a step of their own.
    crowd = [Request(tuple(range(6, 60)) * 2, seed) for seed in range(40)]
    assert [c.finish_reason in ("stop", "length") for c in sample(sampler, crowd)] == [True] * 40
    sampler.close()


@pytest.mark.vllm
@pytest.mark.slow
def test_server(folder, requests, expected, tmp_path):
    pytest.importorskip("vllm")
    from o1p_jax.sampling.server import ServerSampler

    with serving(folder, tmp_path / "log", free_port(), 128) as url:
        config = SamplingConfig(sampler="server", servers=(url,), slots=4)
        probes = [request.prompt_ids for request in requests[:2]]
        check(ServerSampler(config, folder, GREEDY, "float32", probes), requests, expected)


@pytest.mark.vllm
@pytest.mark.slow
def test_two_engines_fill_one_folder_and_what_a_killed_one_leaves_the_other_does(tmp_path):
    pytest.importorskip("vllm")
    model = Path(o1p_jax.__file__).parent / "embedded" / "model"
    config = RunConfig(
        problems=ProblemConfig(limit_train=16),
        evaluation=EvaluationConfig(max_tokens=160),
        sampling=SamplingConfig(
            sampler="vllm", samples_per_problem=2, max_tokens=160, problems_per_shard=1, vllm=VllmConfig(**SETTINGS)
        ),
    )
    config = replace(config, run=str(tmp_path))
    problems = load_problems(config.problems.train, config.problems, config.problems.limit_train)
    prompts = make_prompts(model, problems, config.problems)
    pool = training_pool(config, find_model("embedded"), prompts)
    job = SampleJob(title="train", pools=(str(pool.path),), folder=str(model), sampling=config.sampling, mesh="1x1",
                    dtype="float32")  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(to_dict(job)))
    command = [sys.executable, "-m", "o1p_jax.stages.presample", tmp_path / "job.json"]
    root = Path(__file__).parents[2]
    logs = [(tmp_path / f"log{i}").open("w") for i in range(2)]
    engines = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, stdout=log, cwd=root) for log in logs]
    found = pool.samples.path.glob
    while len(list(found("*.claim"))) < 2 or not list(found("*.parquet")):  # both are at work
        assert all(engine.poll() is None for engine in engines)
        time.sleep(0.02)
    engines[0].kill()
    assert engines[1].wait(timeout=300) == 0 and engines[0].wait() == -9
    told = (tmp_path / "log1").read_text().splitlines()
    ours = ("presample train: ", f"{pool.samples.path}: ")  # the second where it waits for what the other has claimed
    assert told and all(line.startswith(ours) for line in told), told  # no word of vLLM's own
    rows = pool.samples.read(["problem_id", "sample_idx", "completion_ids"]).to_pylist()
    assert len({(row["problem_id"], row["sample_idx"]) for row in rows}) == len(rows) == 32
    assert all(row["completion_ids"] for row in rows)


class FakeEngine:
    """Stands for vLLM's engine: every request gets one token, the low bits of its seed or the engine's own."""

    def __init__(self, step=None):
        self.waiting, self.seed, self.asked, self.step_instead = [], None, [], step

    def collective_rpc(self, function, args):
        worker = SimpleNamespace(model_runner=SimpleNamespace(rng_params_for_sampling=None))
        function(worker, *args)
        self.seed = (worker.model_runner.rng_params_for_sampling, args[0])

    def add_request(self, name, prompt, params):
        self.asked.append(params.seed)
        self.waiting.append(name)

    def step(self):
        if self.step_instead:
            self.step_instead()
        done = SimpleNamespace(token_ids=[7], finish_reason="stop")  # what is new, and not what came before
        return [SimpleNamespace(finished=True, request_id=self.waiting.pop(), outputs=[done])]


class EngineArgs(SimpleNamespace):
    """Stands for vLLM's arguments, a few by name and those that the sampler sets."""

    def __init__(self, max_num_seqs=4, gpu_memory_utilization=0.9, **own):
        super().__init__(max_num_seqs=max_num_seqs, gpu_memory_utilization=gpu_memory_utilization, **own)


def fake(monkeypatch, tpu=False, step=None, **engine_args):
    """A sampler whose vLLM is made up."""
    engine = FakeEngine(step)
    platform = SimpleNamespace(is_tpu=lambda: tpu)
    module = ModuleType("vllm")
    module.__version__, module.SamplingParams, module.EngineArgs = "0", SimpleNamespace, EngineArgs

    def from_engine_args(args):
        engine.args = args
        engine.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=args.max_num_seqs))
        return engine

    module.LLMEngine = SimpleNamespace(from_engine_args=from_engine_args)
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = platform
    params = ModuleType("vllm.sampling_params")
    params.RequestOutputKind = SimpleNamespace(DELTA=1)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(vllm_engine, "_is_cpu_build", lambda: False)
    for name in vllm_engine._ENVIRONMENT:
        monkeypatch.setenv(name, vllm_engine._ENVIRONMENT[name])
    return vllm_engine.VllmSampler(
        Path("model"), DRAWN, VllmConfig(engine_args=engine_args or None), max_length=9
    ), engine


def test_a_tpus_engine_is_seeded_for_a_call_because_it_takes_no_seed_for_a_request(monkeypatch, requests, capsys):
    import jax

    sampler, engine = fake(monkeypatch)
    sample(sampler, requests)
    assert sampler.seeds_each and engine.seed is None and engine.asked == [r.seed for r in requests]
    sampler, engine = fake(monkeypatch, tpu=True)
    sample(sampler, [r._replace(seed=r.seed % 2**31) for r in requests])
    key, seed = engine.seed
    assert not sampler.seeds_each and engine.asked == [None] * 6 and seed == requests[0].seed % 2**31
    assert jax.random.key_data(key).shape == (2,) and "takes no seed for each sample" in capsys.readouterr().err


def test_further_arguments_reach_the_engine(monkeypatch, requests):
    sampler, engine = fake(monkeypatch, max_num_seqs=2, gpu_memory_utilization=0.5)
    assert (sampler.room, engine.args.gpu_memory_utilization, engine.args.max_model_len) == (2, 0.5, 9)
    assert len(sample(sampler, requests)) == 6 and sampler.room == 2
    with pytest.raises(BadInput, match=r"engine_args: vLLM 0 has no argument max_num_seq; did you mean: max_num_seqs"):
        fake(monkeypatch, max_num_seq=2)


def test_a_stop_is_no_failure_of_vllm(monkeypatch, requests):
    """vLLM turns whatever is raised while it works into errors of its own."""

    def stopped():
        try:
            raise Preempted("stopped by SIGTERM")
        except Preempted as e:
            raise RuntimeError("EngineCore encountered an issue") from e

    sampler, _ = fake(monkeypatch, step=stopped)
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        sample(sampler, requests)

    def failed():
        raise RuntimeError("out of blocks")

    sampler, _ = fake(monkeypatch, step=failed)
    with pytest.raises(SamplerGone, match="vLLM stopped: out of blocks"):
        sample(sampler, requests)


def test_without_vllm_one_line_names_the_remedy(tmp_path, monkeypatch):
    def absent(name: str) -> str:
        raise vllm_engine.PackageNotFoundError(name)

    monkeypatch.setattr(vllm_engine, "version", absent)
    with pytest.raises(BadInput, match=r"sampling\.vllm\.python: .* has no vLLM"):
        vllm_engine.VllmSampler(tmp_path, DRAWN, VllmConfig(), max_length=128)


def test_modules_import_neither_jax_nor_an_engine():
    """They also run where only one of them is installed."""
    code = (
        "import sys; from o1p_jax.sampling import base, server, vllm; "
        "print([m for m in ('jax', 'flax', 'vllm', 'openai', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.replace("'", '"')) == []
