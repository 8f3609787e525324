import dataclasses

import pytest

from o1p_jax.config.text import fingerprint, flatten, from_dict, to_dict
from o1p_jax.config.tree import RunConfig, SamplingConfig
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.errors import BadInput


def test_round_trip_through_json():
    cfg = RunConfig(mesh="4x2", sampling=SamplingConfig(sampler="server", servers=("http://127.0.0.1:1/v1",)))
    assert from_dict(RunConfig, to_dict(cfg)) == cfg


def test_a_saved_method_comes_back_by_its_name():
    cfg = RunConfig(method=O1PrunerParams(lam=3.0, reward="mine.py:shortest"))
    values = to_dict(cfg)
    assert values["method"]["name"] == "o1_pruner" and from_dict(RunConfig, values) == cfg
    values["method"]["name"] = "o1_pruned"
    with pytest.raises(BadInput, match="o1_pruned: no such method; did you mean o1_pruner"):
        from_dict(RunConfig, values)
    del values["method"]["name"]
    with pytest.raises(BadInput, match="without the method's name"):
        from_dict(RunConfig, values)


def test_flatten_names_every_field_once():
    names = list(flatten(RunConfig()))
    assert len(names) == len(set(names))
    assert {"run", "mesh", "optim.learning_rate", "sampling.vllm.dtype", "method.lam"} <= set(names)


def test_unknown_key_is_refused_by_its_dotted_name():
    values = to_dict(RunConfig())
    values["optim"]["momentum"] = 0.9
    with pytest.raises(BadInput, match=r"optim\.momentum"):
        from_dict(RunConfig, values)


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("problems", "user_template", "no place for it"),
        ("problems", "limit_train", 0),
        ("problems", "system_prompt", "half a character \udcff"),
        ("problems", "template_kwargs", {"messages": 1}),
        ("problems", "date", "30 Nov 2026"),
        ("sampling", "samples_per_problem", 0),
        ("sampling", "temperature", -0.1),
        ("sampling", "top_p", 0.0),
        ("sampling", "top_p", 1.5),
        ("sampling", "top_k", -1),
        ("sampling", "max_tokens", 0),
        ("sampling", "sampler", "server"),  # without servers
        ("grading", "grader", "my_grader.py"),
        ("grading", "timeout_s", 0),
        ("batch", "sequences", 0),
        ("compute", "trainable_layers", 0),
        ("optim", "learning_rate", 0.0),
        ("optim", "learning_rate", float("nan")),
        ("optim", "warmup", 1.0),
        ("checkpoint", "every", 0),
        ("evaluation", "samples_per_problem", 4),  # greedy
    ],
)
def test_bad_values_name_their_field(group, field, value):
    part = getattr(RunConfig(), group)
    with pytest.raises(BadInput) as error:
        dataclasses.replace(part, **{field: value})
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{group}.")


def test_m_above_k_is_refused():
    with pytest.raises(BadInput, match=r"method\.m=3"):
        RunConfig(sampling=SamplingConfig(samples_per_problem=2), method=O1PrunerParams(m=3))


def test_fingerprint_ignores_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
