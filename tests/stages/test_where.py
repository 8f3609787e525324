"""Where stages run: engines with GPUs of their own, and servers for each of the models that are compared."""

from dataclasses import replace

import pytest

from o1p_jax.config.tree import EvaluationConfig, ProblemConfig, RunConfig, SamplingConfig, VllmConfig
from o1p_jax.runtime.children import run_child
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import where
from o1p_jax.stages.pool import training_pool
from o1p_jax.stages.preflight import preflight

BASE, EXPORT = ("http://base:1/v1",), ("http://export:1/v1",)


@pytest.mark.parametrize(
    ("gpus", "visible", "fields", "expected"),
    [
        (None, None, {}, [None]),  # a CPU
        (None, None, {"replicas": 2}, [None, None]),
        (1, None, {}, [None]),
        (4, None, {}, ["0", "1", "2", "3"]),
        (8, None, {"tensor_parallel": 4}, ["0,1,2,3", "4,5,6,7"]),
        (7, None, {"tensor_parallel": 2}, ["0,1", "2,3", "4,5"]),
        (8, None, {"replicas": 1}, [None]),
        (2, "5,GPU-a", {}, ["5", "GPU-a"]),
    ],
)
def test_engines_share_the_hosts_gpus(gpus, visible, fields, expected, monkeypatch):
    monkeypatch.setattr(where, "gpus_of_job", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [e.get("CUDA_VISIBLE_DEVICES") for e in where.engines(VllmConfig(**fields))] == expected


def test_more_engines_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(where, "gpus_of_job", lambda: 4)
    for fields in ({"tensor_parallel": 8}, {"replicas": 3, "tensor_parallel": 2}):
        with pytest.raises(BadInput, match=r"tensor_parallel=[82]: x [13] replicas is more GPUs than the 4"):
            where.engines(VllmConfig(**fields))


def served(**fields) -> RunConfig:
    return RunConfig(
        sampling=SamplingConfig(sampler="server", servers=BASE, served_model="a"), evaluation=EvaluationConfig(**fields)
    )


def test_each_model_is_asked_of_its_own_servers():
    cfg = served(servers=EXPORT, served_model="b")
    before, after = where.for_evaluation(cfg, base=True), where.for_evaluation(cfg, base=False)
    assert (before.servers, before.served_model) == (BASE, "a")
    assert (after.servers, after.served_model) == (EXPORT, "b")
    assert where.for_evaluation(served(sampler="jax"), base=False).sampler == "jax"


def test_servers_that_are_not_named_are_refused_before_anything_is_sampled(tmp_path):
    cfg = replace(served(), run=str(tmp_path / "run"))
    with pytest.raises(BadInput, match=r"^evaluation\.servers: left out, .*or set evaluation\.sampler=jax or vllm"):
        preflight(cfg, ("train", "test"))
    where.check_servers(cfg, models=1)
    where.check_servers(served(servers=EXPORT), models=2)
    where.check_servers(served(sampler="jax"), models=2)
    with pytest.raises(BadInput, match=r"^sampling\.servers: left out"):
        where.check_servers(RunConfig(evaluation=EvaluationConfig(sampler="server", servers=EXPORT)), models=2)


def test_sampling_by_servers_or_vllm_needs_no_mesh(tmp_path):
    elsewhere = SamplingConfig(sampler="vllm", vllm=VllmConfig(python="python"))
    for sampling in (served().sampling, elsewhere):
        sampling = replace(sampling, max_tokens=1024)
        cfg = RunConfig(mesh="fsdp:48", pool=str(tmp_path / "pool"), sampling=sampling)
        preflight(cfg, ("train",), pool_alone=True, training=False)
        with pytest.raises(BadInput, match=r"^mesh=fsdp:48: .* does not divide hidden_size"):
            preflight(cfg, ("train",), pool_alone=True)


def test_the_embedded_sampler_has_a_process_with_a_device_a_core(tmp_path, monkeypatch):
    started = []

    def noted(module, job):
        started.append(job["mesh"])
        run_child(module, job)

    monkeypatch.setattr(where, "run_child", noted)
    monkeypatch.setattr(where, "cores", lambda: 2)
    filled = {}
    for name, worth in {"apart": 4 * 2 * 16, "here": 4 * 2 * 16 + 1}.items():
        monkeypatch.setattr(where, "WORTH_A_PROCESS", worth)
        cfg = RunConfig(
            mesh="8x1",
            pool=str(tmp_path / name),
            problems=ProblemConfig(limit_train=4, max_prompt_tokens=128),
            sampling=SamplingConfig(samples_per_problem=2, max_tokens=16, slots=8),
        )
        inputs = preflight(cfg, ("train",), pool_alone=True, training=False)
        pool = training_pool(cfg, inputs.source, inputs.train)
        where.sample(cfg, cfg.sampling, inputs.source, [pool], title="train")
        filled[name] = pool.read(["problem_id", "seed", "completion_ids"]).to_pylist()
    assert started == ["2x1"] and len(filled["apart"]) == 8 and filled["apart"] == filled["here"]
    assert not where._crowded("2x1") and where._crowded("4x1")
