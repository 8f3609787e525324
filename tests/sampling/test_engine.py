"""The embedded sampler: right tokens, right distribution, and no sample depends on its neighbours."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from core_cases import some_core
from flax import nnx
from tiny_models import save, torch_model
from transformers import AutoModelForCausalLM

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Request
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import graph, init_params
from o1p_jax.models.families import read_config
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.runtime.errors import NonFinite
from o1p_jax.sampling import SamplingParams, make_sampler, sample
from o1p_jax.sampling.decode import decode, empty_cache, prefill
from o1p_jax.sampling.draw import Draw
from o1p_jax.sampling.engine import JaxSampler

CONFIG = dict(
    model_type="qwen3",
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    initializer_range=0.3,
    tie_word_embeddings=True,
)
CFG = read_config(CONFIG)
GREEDY = SamplingParams(temperature=0.0, max_tokens=40, stop_ids=(3, 5))


def requests(n: int, longest: int = 90) -> list[Request]:
    rng = np.random.default_rng(0)
    return [
        Request(tuple(rng.integers(0, 64, rng.integers(1, longest)).tolist()), seed=int(rng.integers(2**62)))
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def params() -> nnx.State:
    return init_params(CFG, jax.random.key(0), make_mesh("1x1"))


def sampler(params: nnx.State, how: SamplingParams, mesh: str = "2x1", slots: int = 16) -> JaxSampler:
    return JaxSampler(CFG, params, make_mesh(mesh), how, dtype="float32", slots=slots, max_length=1200)


@pytest.fixture(scope="module")
def folder(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    export_params(params, CFG, path, config=CONFIG)
    return path


def generate(model, prompt_ids: tuple[int, ...], **changes) -> tuple[int, ...]:
    """transformers' greedy tokens under the limits of GREEDY, unless `changes` says otherwise."""
    prompt = torch.tensor([prompt_ids])
    how = dict(do_sample=False, max_new_tokens=40, eos_token_id=[3, 5], pad_token_id=0) | changes
    with torch.no_grad():
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **how)
    return tuple(out[0, prompt.shape[1] :].tolist())


@pytest.mark.parametrize("mesh", some_core(["1x1", "4x2"], ["4x2"]))
def test_greedy_equals_transformers(params, folder, mesh):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = requests(20)
    ours = sampler(params, GREEDY, mesh)
    found = sample(ours, asked)
    for request, got in zip(asked, found, strict=True):
        assert got.token_ids == generate(model, request.prompt_ids)
        assert got.finish_reason == ("stop" if got.token_ids[-1] in (3, 5) else "length")
        assert len(got.token_ids) == 40 or got.finish_reason == "stop"
    assert ours.tokens == sum(len(got.token_ids) for got in found)


@pytest.mark.parametrize("how", [GREEDY, SamplingParams(temperature=0.5, top_p=0.8, max_tokens=30, stop_ids=(3,))])
def test_log_probabilities_are_the_models_own_however_tokens_are_drawn(params, folder, how):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = [request._replace(logprobs=i % 2 == 0) for i, request in enumerate(requests(12))]
    for request, got in zip(asked, sample(sampler(params, how), asked), strict=True):
        if not request.logprobs:
            assert got.logprobs is None
            continue
        text = torch.tensor([request.prompt_ids + got.token_ids])
        with torch.no_grad():
            logprobs_LV = model(text).logits[0].log_softmax(-1)
        at = range(len(request.prompt_ids) - 1, text.shape[1] - 1)
        np.testing.assert_allclose(got.logprobs, [logprobs_LV[i, text[0, i + 1]] for i in at], atol=1e-4)


@pytest.mark.parametrize(
    ("case", "mesh"),
    [
        ("gemma2", "2x1"),
        ("gemma3", "2x1"),
        ("granite", "2x1"),
        ("olmo3_yarn", "2x1"),
        ("smollm3_windows", "2x1"),
        ("qwen3_moe", "2x1"),
        ("mixtral", "expert:2"),
        ("gpt_oss", "fsdp:2,expert:2,tensor:2"),
        ("mistral_window", "context:3,tensor:2"),
    ],
)
def test_every_kind_of_model(case, mesh, tmp_path):
    """Windows, soft caps, ropes and sinks in the cache; experts on devices of their own."""
    mesh, cfg = make_mesh(mesh), load_config(save(case, tmp_path))
    ours = JaxSampler(cfg, load_params(tmp_path, cfg, mesh), mesh, GREEDY, dtype="float32", slots=4, max_length=140)
    asked = requests(8)
    for request, got in zip(asked, sample(ours, asked), strict=True):
        assert got.token_ids == generate(copy.deepcopy(torch_model(case)), request.prompt_ids)


@pytest.mark.parametrize(("case", "cached"), [("phi3_longrope", False), ("llama_longrope", True)])
def test_equals_transformers_around_the_length_where_the_rope_changes(case, cached, tmp_path):
    """Prompts of 62 to 67 tokens, and shorter ones that grow past 64, where phi3 computes all keys anew.

    transformers 5 drops phi3's cache there and goes on with the last token alone, so that it has to do without a cache.
    """
    cfg = load_config(save(case, tmp_path))
    mesh, rng = make_mesh("2x1"), np.random.default_rng(0)
    how = SamplingParams(temperature=0.0, max_tokens=20, stop_ids=())
    ours = JaxSampler(cfg, load_params(tmp_path, cfg, mesh), mesh, how, dtype="float32", slots=4, max_length=90)
    lengths = (62, 63, 64, 65, 66, 67, 47, 48, 49, 58)
    asked = [Request(tuple(rng.integers(0, 64, n).tolist()), seed=0) for n in lengths]
    for request, got in zip(asked, sample(ours, asked), strict=True):
        model = copy.deepcopy(torch_model(case))
        expected = generate(model, request.prompt_ids, max_new_tokens=20, eos_token_id=None, use_cache=cached)
        assert got.token_ids == expected, len(request.prompt_ids)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "HIGHEST"), ("bfloat16", "DEFAULT")])
def test_products_are_as_exact_as_their_type(params, dtype, precision):
    ours = JaxSampler(CFG, params, make_mesh("1x1"), GREEDY, dtype=dtype, slots=4, max_length=64)
    cache = empty_cache(CFG, 4, 64, ours._layout)
    ids, of_row, keys = jnp.zeros((4, 16), jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros((4, 2), jnp.uint32)
    programs = (
        prefill.lower(ours._params, cache, ids, of_row, of_row, of_row[:1], layout=ours._layout),
        decode.lower(
            ours._params, cache, of_row, of_row, of_row, keys, of_row, draw=Draw(1.0, 1.0, 0), layout=ours._layout
        ),
    )
    for program in programs:
        products = [line for line in program.as_text().splitlines() if "stablehlo.dot_general" in line]
        assert len(products) > 5 and all(f"precision = [{precision}, {precision}]" in line for line in products)


@pytest.mark.slow
def test_sample_does_not_depend_on_neighbours(params):
    how = SamplingParams(max_tokens=100, stop_ids=(3,))
    asked = requests(40)
    together = sample(sampler(params, how, "2x1", slots=16), asked)
    reversed_ = sample(sampler(params, how, "1x1", slots=5), asked[::-1])[::-1]
    alone = sample(sampler(params, how, "1x1", slots=1), asked[7:8])
    assert together == reversed_
    assert together[7:8] == alone
    assert len({c.token_ids for c in together}) > 30


def test_devices_do_not_share_the_hosts_tables(params):
    memory = np.zeros(64, np.int32)
    start = -memory.ctypes.data % 64 // 4  # aligned as JAX needs it to use the memory itself
    table = memory[start : start + 16]
    (on_devices,) = sampler(params, GREEDY)._on_rows(table)
    table += 1
    assert not np.asarray(on_devices).any()


def test_rows_outgrow_the_cache_they_began_with(params):
    asked = [Request((1, 2, 3), seed=7), Request((4,), seed=8)]
    long = sample(sampler(params, SamplingParams(max_tokens=1100, stop_ids=()), slots=2), asked)
    short = sample(sampler(params, SamplingParams(max_tokens=20, stop_ids=()), slots=2), asked)
    for a, b in zip(long, short, strict=True):
        assert len(a.token_ids) == 1100 and a.finish_reason == "length"
        assert a.token_ids[:20] == b.token_ids


def test_requests_that_come_late_are_drawn_as_if_alone(params):
    """The table loses slots while few are left, and has them back when more come."""
    how = SamplingParams(max_tokens=200, stop_ids=(3,))
    asked, ours, found = requests(60), sampler(params, how, slots=32), {}
    waiting = list(enumerate(asked))
    for first, rest in ((1, 59), (30, 29), (59, 0)):
        while len(waiting) > rest:
            ours.add(*waiting.pop(0))
        while len(found) < first:
            found |= dict(ours.step())
    while len(found) < 60:
        found |= dict(ours.step())
    assert [found[i] for i in range(60)] == sample(sampler(params, how, "1x1", slots=5), asked)


def test_a_seed_uses_all_its_bits(params):
    asked = [Request((1, 2, 3), seed=s) for s in (5, 5 + 2**32, 5 + 2**62)]
    got = sample(sampler(params, SamplingParams(max_tokens=30, stop_ids=())), asked)
    assert len({c.token_ids for c in got}) == 3


def test_no_requests(params):
    assert sampler(params, GREEDY).step() == []


@pytest.mark.slow
def test_first_token_follows_the_softmax(params):
    """Chi-square of 4,000 samples against the full forward pass, at a temperature."""
    prompt = (9, 8, 7)
    model = nnx.merge(graph(CFG), params)
    ids = jnp.asarray([prompt])
    hidden = model(ids, jnp.arange(3)[None], jnp.ones((1, 3), jnp.int32))
    expected = 4000 * np.asarray(jax.nn.softmax(hidden[0, -1] @ model.head_DV() / 1.5))
    how = SamplingParams(temperature=1.5, max_tokens=1, stop_ids=())
    got = sample(sampler(params, how, slots=64), [Request(prompt, seed=i) for i in range(4000)])
    counts = np.bincount([c.token_ids[0] for c in got], minlength=64)
    likely = expected >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], max(expected[~likely].sum(), 1e-9))
    freedom = len(wanted) - 1
    assert ((observed - wanted) ** 2 / wanted).sum() < freedom + 4 * np.sqrt(2 * freedom)


def test_weights_that_are_no_numbers(params):
    broken = jax.tree.map(lambda a: a * jnp.nan, params)
    with pytest.raises(NonFinite, match="logits are not finite"):
        sample(sampler(broken, dataclasses.replace(GREEDY, temperature=1.0)), requests(3))


def test_made_from_a_folder(params, folder):
    made = make_sampler(SamplingConfig(slots=16), folder, GREEDY, mesh="2x1", dtype="float32", max_length=200)
    assert (made.name, made.version) == ("jax", f"jax {jax.__version__}")
    asked = requests(3)
    assert sample(made, asked) == sample(sampler(params, GREEDY), asked)
    made.close()
