"""Numbers of a configuration keep to their bounds, whatever section they stand in."""

import dataclasses
import math

import pytest

from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime.errors import BadInput

CFG = RunConfig(pool="pools/any")  # its own number of samples does not bound m


def numbers(kind, part=CFG, prefix=()):
    """The dotted name of every field that holds a number of this kind, or may hold one."""
    found = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            found += numbers(kind, value, (*prefix, field.name))
        elif field.type in (kind, kind | None):
            found.append(".".join((*prefix, field.name)))
    return found


def changed(part, path, value):
    name, *rest = path
    return dataclasses.replace(part, **{name: changed(getattr(part, name), rest, value) if rest else value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("name", numbers(float))
def test_numbers_are_finite_and_none_is_negative_that_must_not_be(name, value):
    if value != -1.0 or name not in ("method.reward_low", "method.reward_high"):
        assert refused(name, value).startswith(f"{name}=")


@pytest.mark.parametrize("name", numbers(int))
def test_no_count_and_no_seed_is_negative(name):
    assert refused(name, -1).startswith(f"{name}=-1")


def refused(name, value):
    with pytest.raises(BadInput) as error:
        changed(CFG, name.split("."), value)
    assert str(error.value).startswith(f"{name}=") and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "seed", "sampling.seed", "sampling.samples_per_problem", "sampling.max_tokens", "sampling.slots",
        "sampling.temperature", "sampling.timeout_s", "sampling.vllm.kv_cache_gib", "sampling.vllm.tensor_parallel",
        "sampling.vllm.replicas", "evaluation.max_tokens", "evaluation.samples_per_problem", "evaluation.temperature",
        "evaluation.bootstrap", "batch.sequences", "batch.row_length", "optim.epochs",
        "optim.learning_rate", "optim.adam_eps", "optim.weight_decay", "method.lam", "method.reward_high",
    ],
)  # fmt: skip
def test_what_no_machine_holds_is_refused(name):
    kind = float if name in numbers(float) else int
    assert "most" in refused(name, kind(10**12)) or name.endswith("temperature")
