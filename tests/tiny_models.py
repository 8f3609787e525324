"""Tiny random models made by transformers, one for each thing our decoder must get right."""

import functools
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

SIZES = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
_YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, rope_theta=1e4)

CASES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama_odd_heads": LlamaConfig(**SIZES | dict(hidden_size=72, num_attention_heads=9, num_key_value_heads=3)),
    "llama_linear": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=1e4)),
    "llama_llama3_tied": LlamaConfig(
        **SIZES,
        tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
            rope_theta=5e5,
        ),
    ),
    "qwen2_tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2_yarn": Qwen2Config(**SIZES, rope_parameters=_YARN),
    "qwen3_head_dim": Qwen3Config(**SIZES, head_dim=32),
    "qwen3_tied_yarn": Qwen3Config(
        **SIZES,
        head_dim=16,
        tie_word_embeddings=True,
        attention_bias=True,
        rope_parameters=_YARN | dict(beta_fast=16.0, beta_slow=2.0, mscale=1.0, mscale_all_dim=0.5, truncate=False),
    ),
}


@functools.cache
def torch_model(case: str) -> PreTrainedModel:
    """The model, float32; its weights are large and its biases and norms random, so that a mistake anywhere shows."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CASES[case]).float().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
            else:
                p.mul_(5)
    return model


def save(case: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The model as a Hugging Face folder."""
    torch_model(case).to(dtype).save_pretrained(folder)
    torch_model(case).float()
    return folder
