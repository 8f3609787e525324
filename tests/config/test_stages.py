"""Every field says what depends on it, and one look tells what a change costs."""

from dataclasses import fields, is_dataclass, replace

import pytest

from o1p_jax.config.stages import fields_of
from o1p_jax.config.tree import ComputeConfig, EvaluationConfig, RunConfig, SamplingConfig
from o1p_jax.runtime.fields import EVALUATION, GRADES, RESULTS, SAMPLES, TRAINING, WEIGHTS, option

CFG = RunConfig()


def test_every_field_says_what_depends_on_it():
    def silent(part, prefix=""):
        for field in fields(part):
            value = getattr(part, field.name)
            if is_dataclass(value):
                yield from silent(value, f"{prefix}{field.name}.")
            elif "affects" not in field.metadata:
                yield prefix + field.name

    assert not list(silent(CFG)) and not list(silent(CFG.training))


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("compute.remat", ()),
        ("batch.tokens_per_device", ()),
        ("sampling.slots", ()),
        ("sampling.shards_in_flight", ()),
        ("sampling.vllm.engine_args", ()),
        ("mesh", ()),
        ("checkpoint.every", ()),
        ("evaluation.temperature", (EVALUATION,)),
        ("evaluation.bootstrap", ()),
        ("optim.learning_rate", (TRAINING,)),
        ("method.lam", (WEIGHTS,)),
        ("method.epsilon", (TRAINING,)),
        ("grading.grader", (GRADES, EVALUATION)),
        ("sampling.temperature", (SAMPLES,)),
        ("sampling.sampler", (SAMPLES, EVALUATION)),
        ("evaluation.sampler", (EVALUATION,)),
        ("sampling.servers", ()),
        ("batch.row_length", (WEIGHTS, TRAINING)),
        ("batch.too_long", (WEIGHTS,)),
        ("compute.deterministic", ()),
        ("seed", (SAMPLES, WEIGHTS, TRAINING, EVALUATION)),
    ],
)
def test_what_depends_on_a_field(name, results):
    assert tuple(r for r in RESULTS if name in fields_of(CFG, r)) == results


def test_fields_of_another_sampler_do_not_count_for_samples():
    vllm = RunConfig(sampling=SamplingConfig(sampler="vllm"), compute=ComputeConfig(dtype="float32"))
    for result in (SAMPLES, EVALUATION):
        assert "compute.dtype" in fields_of(CFG, result) and "sampling.vllm.dtype" not in fields_of(CFG, result)
        assert "compute.dtype" not in fields_of(vllm, result) and "sampling.vllm.dtype" in fields_of(vllm, result)
    assert fields_of(vllm, TRAINING)["compute.dtype"] == "float32"
    both = replace(vllm, evaluation=EvaluationConfig(sampler="jax"))
    assert "sampling.vllm.dtype" in fields_of(both, SAMPLES) and "compute.dtype" in fields_of(both, EVALUATION)
    assert "sampling.vllm.dtype" not in fields_of(both, EVALUATION) and "compute.dtype" not in fields_of(both, SAMPLES)


def test_training_has_the_fields_of_the_whole_configuration():
    assert fields_of(CFG.training, WEIGHTS, TRAINING) == fields_of(CFG, WEIGHTS, TRAINING)


def test_unknown_results_are_a_mistake():
    with pytest.raises(ValueError, match="unknown results"):
        option(1, "weightz")
