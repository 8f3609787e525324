"""The model that ships: in transformers, in vLLM and in us the same."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from o1p_jax.config.tree import ProblemConfig, VllmConfig
from o1p_jax.data.embedded import embedded_problems
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Request
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import graph
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.models.hf.load import load_params
from o1p_jax.sampling.base import SamplingParams, sample

FOLDER = resolve_model("embedded")


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    prompter = Prompter(FOLDER, ProblemConfig())
    return [prompter.prompt_ids(p) for p in embedded_problems("validation", 8)]


@pytest.fixture(scope="module")
def transformers_model():
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def greedy(transformers_model, prompts) -> list[tuple[int, ...]]:
    """64 tokens for every prompt, by transformers."""
    import torch

    outs = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = transformers_model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64)
        outs.append(tuple(out[0, len(prompt) :].tolist()))
    return outs


def test_it_is_small_and_complete():
    names = {f.name for f in FOLDER.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 10e6


def test_logits_equal_transformers(transformers_model, prompts, greedy):
    import torch

    cfg, mesh = load_config(FOLDER), make_mesh("4x2")
    model = nnx.merge(graph(cfg), load_params(FOLDER, cfg, mesh))
    for prompt, answer in zip(prompts, greedy, strict=True):
        ids_BL = np.array([prompt + answer], np.int32)
        positions_BL = np.arange(ids_BL.shape[1], dtype=np.int32)[None]
        hidden_BLD = model(jnp.asarray(ids_BL), jnp.asarray(positions_BL), jnp.ones_like(ids_BL))
        with torch.no_grad():
            expected_BLV = transformers_model(torch.tensor(ids_BL, dtype=torch.long)).logits.numpy()
        np.testing.assert_allclose(hidden_BLD @ model.head_DV(), expected_BLV, atol=1e-4, rtol=0)


def test_import_then_export_is_bit_identical(tmp_path):
    cfg = load_config(FOLDER)
    export_params(load_params(FOLDER, cfg, make_mesh("8x1")), cfg, tmp_path, source=FOLDER)
    for file in FOLDER.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_gives_the_same_tokens_from_an_export(tmp_path, prompts, greedy):
    pytest.importorskip("vllm")
    from o1p_jax.sampling.vllm import VllmSampler

    cfg = load_config(FOLDER)
    export_params(load_params(FOLDER, cfg, make_mesh("8x1")), cfg, tmp_path, source=FOLDER)
    how = SamplingParams(temperature=0.0, max_tokens=64, stop_ids=(1,))
    sampler = VllmSampler(tmp_path, how, VllmConfig(dtype="float32", kv_cache_gib=0.25), max_length=256)
    completions = sample(sampler, [Request(p, 0) for p in prompts])
    sampler.close()
    assert [c.token_ids for c in completions] == greedy
