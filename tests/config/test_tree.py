import dataclasses
from operator import attrgetter

import pytest

from o1p_jax.config.text import fingerprint, flatten, from_dict, to_dict
from o1p_jax.config.tree import BatchConfig, EvaluationConfig, RunConfig, SamplingConfig
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
        ("sampling.vllm", "engine_args", {"tensor_parallel_size": 2}),
        ("sampling.vllm", "engine_args", {"quantization": "fp8"}),
        ("sampling.vllm", "engine_args", {"trust_remote_code": True}),
        ("problems", "date", "30 Nov 2026"),
        ("sampling", "samples_per_problem", 0),
        ("sampling", "temperature", -0.1),
        ("sampling", "top_p", 0.0),
        ("sampling", "top_p", 1.5),
        ("sampling", "top_k", -1),
        ("sampling", "max_tokens", 0),
        ("sampling", "sampler", "server"),  # without servers
        ("sampling", "servers", ("127.0.0.1:8000/v1",)),
        ("evaluation", "servers", ("localhost",)),
        ("sampling", "servers", ("http://[::1",)),
        ("sampling", "servers", ("http://localhost:port/v1",)),
        ("sampling", "temperature", 1e-9),
        ("grading", "grader", "my_grader.py"),
        ("grading", "timeout_s", 0),
        ("batch", "sequences", 0),
        ("compute", "trainable_layers", 0),
        ("optim", "learning_rate", 0.0),
        ("optim", "learning_rate", float("nan")),
        ("optim", "warmup", 1.0),
        ("checkpoint", "every", 0),
        ("evaluation", "samples_per_problem", 4),  # greedy
        ("evaluation", "budgets", (512, 256)),
        ("evaluation", "budgets", (512, 512)),
        ("evaluation", "budgets", (0, 512)),
        ("evaluation", "budgets", (512, 9000)),
        ("problems", "test", ()),
    ],
)
def test_bad_values_name_their_field(group, field, value):
    part = attrgetter(group)(RunConfig())
    with pytest.raises(BadInput) as error:
        dataclasses.replace(part, **{field: value})
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{group}.")


@pytest.mark.parametrize(
    ("longest", "ladder"), [(8192, (1024, 2048, 4096, 8192)), (384, (48, 96, 192, 384)), (3, (1, 2, 3)), (1, (1,))]
)
def test_budgets_halve_from_max_tokens_unless_they_are_named(longest, ladder):
    assert EvaluationConfig(max_tokens=longest).ladder == ladder
    assert EvaluationConfig(max_tokens=longest, budgets=(longest,)).ladder == (longest,)


def test_one_problem_set_may_stand_alone_as_it_did_in_runs_of_earlier_versions():
    values = to_dict(RunConfig())
    values["problems"]["test"] = "embedded:test"
    assert from_dict(RunConfig, values) == RunConfig()


def test_m_above_k_is_refused_but_not_for_a_pool_which_has_its_own():
    sampling, method = SamplingConfig(samples_per_problem=2), O1PrunerParams(m=3)
    with pytest.raises(BadInput, match=r"method\.m=3"):
        RunConfig(sampling=sampling, method=method)
    RunConfig(sampling=sampling, method=method, pool="pools/any")


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {"top_k": 1}])
def test_greedy_samples_of_a_problem_would_all_be_the_same(fields):
    with pytest.raises(BadInput, match=r"sampling\.samples_per_problem=16: .* all the same; raise it, or take one"):
        SamplingConfig(**fields)
    SamplingConfig(samples_per_problem=1, **fields)


def test_one_sample_can_not_be_compared_with_others():
    one = SamplingConfig(samples_per_problem=1)
    with pytest.raises(BadInput, match=r"sampling\.samples_per_problem=1: method=o1_pruner .* take at least 2"):
        RunConfig(sampling=one, method=O1PrunerParams(m=1))
    RunConfig(sampling=one, method=O1PrunerParams(m=1, reward="mine.py:shortest"))


def test_a_row_holds_the_longest_prompt_with_the_longest_solution_unless_samples_may_be_dropped():
    assert RunConfig().batch.row_length == 9216  # problems.max_prompt_tokens + sampling.max_tokens
    with pytest.raises(BadInput, match=r"^batch\.row_length=9215: must be at least 9216, .*batch\.too_long=drop"):
        RunConfig(batch=BatchConfig(row_length=9215))
    RunConfig(batch=BatchConfig(row_length=9215, too_long="drop"))


def test_vllm_can_not_follow_jax_on_one_accelerator():
    with pytest.raises(BadInput, match=r"^evaluation\.sampler=vllm: .* set sampling\.sampler=vllm"):
        RunConfig(evaluation=EvaluationConfig(sampler="vllm"))


def test_fingerprint_ignores_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
