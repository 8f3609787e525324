"""Models of every family with sizes and switches drawn at random: what no list of cases thinks of."""

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from tiny_models import roughen
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import graph
from o1p_jax.models.families import FAMILIES
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params

Entries = dict[str, Any]
APART = ("llama", "qwen3", "qwen3_moe", "mistral", "mixtral", "gpt_oss", "gemma2", "gemma3_text")
"""Families whose head_dim is an entry of its own."""
BY_TYPE = ("gemma3_text", "olmo3")
"""Families with a rotary embedding for each type of layer."""


def random_rope(r: random.Random, dim: int, kinds: tuple[str, ...]) -> Entries:
    kind = r.choice(kinds)
    rope: Entries = dict(rope_type=kind, rope_theta=r.choice([1e4, 5e5, 1234.5]))
    original = dict(original_max_position_embeddings=r.choice([32, 64]))
    match kind:
        case "linear" | "dynamic":
            rope |= dict(factor=r.choice([2.0, 8.5]))
        case "llama3":
            rope |= dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=r.choice([3.0, 4.0])) | original
        case "yarn":
            rope |= dict(factor=r.choice([2.0, 8.5])) | original
            chosen = (dict(beta_fast=16.0, beta_slow=2.0), dict(attention_factor=1.3), dict(truncate=False))
            for more in (*chosen, dict(mscale=0.7, mscale_all_dim=1.1)):
                rope |= more if r.random() < 0.4 else {}
        case "longrope":
            rope |= dict(
                short_factor=[1 + r.random() for _ in range(dim // 2)],
                long_factor=[1 + 4 * r.random() for _ in range(dim // 2)],
            )
            rope |= original | (dict(factor=6.0) if r.random() < 0.5 else {})
    return rope


def random_config(family: str, seed: int) -> PreTrainedConfig:
    r = random.Random(f"{family}/{seed}")
    kv_heads, layers, dim = r.choice([1, 2, 3]), r.choice([1, 2, 3, 5, 6]), r.choice([8, 16, 24])
    heads = kv_heads * r.choice([1, 2, 3])
    apart = family in APART
    config: Entries = dict(
        vocab_size=r.choice([64, 97]),
        hidden_size=heads * (r.choice([8, 12]) if apart else dim),
        intermediate_size=r.choice([40, 64]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=r.choice([64, 128, 256]),
        tie_word_embeddings=r.random() < 0.5,
        rms_norm_eps=r.choice([1e-6, 1e-3]),
        pad_token_id=None,
    )
    config |= dict(head_dim=dim) if apart else {}
    every = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
    if family == "phi3":
        share = r.choice([0.5, 1.0])
        rope = random_rope(r, int(dim * share), ("default", "longrope")) | dict(partial_rotary_factor=share)
        rope.pop("original_max_position_embeddings", None)
        config |= dict(original_max_position_embeddings=r.choice([32, 64]), rope_parameters=rope)
    elif family in BY_TYPE:
        ropes = {"full_attention": random_rope(r, dim, every), "sliding_attention": random_rope(r, dim, every[:1])}
        config |= dict(rope_parameters=ropes)
    else:
        config |= dict(rope_parameters=random_rope(r, dim, every))

    if family not in ("qwen2", "mistral", "mixtral", "phi3"):
        config |= dict(attention_bias=r.random() < 0.5)
    if family in ("llama", "smollm3", "granite"):
        config |= dict(mlp_bias=r.random() < 0.5)
    if family in ("qwen2", "qwen3", "qwen3_moe"):
        config |= dict(use_sliding_window=r.random() < 0.6, max_window_layers=r.choice([0, 1, 2]))
    if family in ("qwen3_moe", "mixtral", "gpt_oss"):
        experts = r.choice([1, 2, 5, 16])
        config |= dict(num_local_experts=experts, num_experts_per_tok=r.randint(1, min(experts, 4)))
    if family == "qwen3_moe":
        config |= dict(moe_intermediate_size=r.choice([16, 36]), norm_topk_prob=r.random() < 0.5)
    if family == "gpt_oss":
        config |= dict(swiglu_limit=r.choice([0.3, 7.0]), swiglu_alpha=r.choice([1.0, 1.702]))
    config |= dict(sliding_window=r.choice([1, 9, 60]))
    if family in ("mistral", "mixtral", "phi3") and r.random() < 0.4:
        config |= dict(sliding_window=None)
    if family in ("gemma2", "gemma3_text", "olmo3", "gpt_oss") and r.random() < 0.6:
        config |= dict(layer_types=[r.choice(["full_attention", "sliding_attention"]) for _ in range(layers)])
    if family == "smollm3":
        chosen = dict(no_rope_layers=[r.choice([0, 1]) for _ in range(layers)])
        config |= dict(use_sliding_window=r.random() < 0.5) | r.choice([chosen, dict(no_rope_layer_interval=2)])
    if family in ("gemma2", "gemma3_text"):
        config |= dict(
            query_pre_attn_scalar=r.choice([8, 100]),
            attn_logit_softcapping=r.choice([None, 2.0]),
            final_logit_softcapping=r.choice([None, 1.5]),
            hidden_activation=r.choice(["gelu_pytorch_tanh", "silu"]),
        )
    else:
        config |= dict(hidden_act=r.choice(["silu", "gelu", "gelu_pytorch_tanh"]))
    if family == "granite":
        config |= dict(embedding_multiplier=12.0, attention_multiplier=0.05, residual_multiplier=0.22, logits_scaling=8)
    return CONFIG_MAPPING[family](**config)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_bytes(family, seed, tmp_path):
    torch.manual_seed(seed)
    theirs = roughen(AutoModelForCausalLM.from_config(random_config(family, seed), attn_implementation="eager"))
    theirs.save_pretrained(tmp_path)
    cfg = load_config(tmp_path)
    params = load_params(tmp_path, cfg, make_mesh("1x1"))

    @jax.jit
    def logits(ids_BL, positions_BL):
        model = nnx.merge(graph(cfg), params)
        return model.logits(model(ids_BL, positions_BL, jnp.ones_like(ids_BL)) @ model.head_DV())

    ids_BL = np.random.default_rng(seed).integers(0, cfg.vocab_size, (1, 256)).astype(np.int32)
    positions_BL = np.arange(256, dtype=np.int32)[None]
    with torch.no_grad():
        expected_BLV = theirs(torch.tensor(ids_BL).long()).logits.numpy()
    np.testing.assert_allclose(logits(jnp.asarray(ids_BL), jnp.asarray(positions_BL)), expected_BLV, atol=1e-4)

    export_params(params, cfg, tmp_path / "out", source=tmp_path)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
