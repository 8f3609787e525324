import dataclasses

import pytest

from o1p_jax.config.chips import Topology
from o1p_jax.config.tree import BatchConfig, RunConfig, SamplingConfig
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.planning.compile import model_config
from o1p_jax.planning.job_cost import job_cost, sampling_rate
from o1p_jax.planning.roofline import step_flops
from o1p_jax.planning.step_time import StepTime

MODEL = model_config(dataclasses.replace(RunConfig(), model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"))


def test_sampling_reads_the_weights_once_a_token_and_each_rows_cache():
    chips, batch, rate = sampling_rate(MODEL, Topology.parse("h100:1x8"), 8192)
    assert chips == 1
    cached = 2 * 28 * 4 * 128 * 2 * 8192
    assert batch == int((0.9 * 80e9 - 7615616512 * 2) // cached)
    assert rate == pytest.approx(batch * 3350e9 / (7615616512 * 2 + batch * cached / 2))
    assert sampling_rate(MODEL, Topology.parse("v5e:4x4"), 8192)[0] == 2  # 15 GB of weights, half of two chips


def test_a_job():
    cfg = RunConfig(
        sampling=SamplingConfig(samples_per_problem=16),
        method=O1PrunerParams(m=2),
        batch=BatchConfig(sequences=32, row_length=17408),
    )
    peak = 8 * 989e12
    estimate = StepTime(seconds={"compute": 1.0}, parts={"products": 2.0}, model_flops=0.8 * peak, peak_flops=peak)
    job = job_cost(cfg, MODEL, Topology.parse("h100:1x8"), estimate, 5000, 8192, 3.0)
    _, _, rate = sampling_rate(MODEL, Topology.parse("h100:1x8"), 8192)
    assert job.sampling == pytest.approx(5000 * 16 * 8192 / (8 * rate))
    assert (job.steps, job.training) == (313, 626.0)
    assert job.reference == pytest.approx(step_flops(MODEL, 10_000 * 8192, 8192) / 3 / (0.4 * peak))
    assert job.dollars == pytest.approx(job.hours * 8 * 3.0) and job.hours * 3600 > job.sampling + job.training
    without = job_cost(cfg, MODEL, Topology.parse("h100:1x8"), estimate, 5000, 8192, None)
    assert without.dollars is None
    three = dataclasses.replace(cfg, rounds=3)
    several = job_cost(three, MODEL, Topology.parse("h100:1x8"), estimate, 5000, 8192, None)
    assert several == dataclasses.replace(without, rounds=3)
