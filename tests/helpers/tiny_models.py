"""Tiny random models made by transformers, one for each thing our decoder must get right."""

import copy
import functools
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

SIZES = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=None,  # torch gives its embedding no gradient
)
_YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, rope_theta=1e4)

_FULL, _SLIDING = "full_attention", "sliding_attention"
_PHI3_ROPE = dict(
    rope_type="longrope",
    rope_theta=1e4,
    short_factor=[1.0, 1.1, 1.3, 1.6],
    long_factor=[1.5, 2.0, 4.0, 7.0],
    partial_rotary_factor=0.5,
)

_MOE = dict(moe_intermediate_size=40, num_experts=6, num_experts_per_tok=3)

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
    "llama_dynamic": LlamaConfig(
        **SIZES | dict(max_position_embeddings=64),
        rope_parameters=dict(rope_type="dynamic", factor=2.0, rope_theta=1e4),
    ),
    "llama_longrope": LlamaConfig(
        **SIZES,
        rope_parameters=_PHI3_ROPE
        | dict(
            partial_rotary_factor=1.0,
            short_factor=[1.0 + i / 8 for i in range(8)],
            long_factor=[1.0 + i for i in range(8)],
            original_max_position_embeddings=64,
        ),
    ),
    "qwen2_windows": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=24, max_window_layers=1),
    "mistral": MistralConfig(**SIZES, head_dim=24, sliding_window=None),
    "mistral_window": MistralConfig(**SIZES, sliding_window=33),
    "phi3": Phi3Config(**SIZES),
    "phi3_longrope": Phi3Config(
        **SIZES, original_max_position_embeddings=64, rope_parameters=_PHI3_ROPE, sliding_window=100
    ),
    "gemma2": Gemma2Config(**SIZES, head_dim=24, sliding_window=40, query_pre_attn_scalar=20),
    "gemma2_untied": Gemma2Config(
        **SIZES, head_dim=16, tie_word_embeddings=False, final_logit_softcapping=3.0, attention_bias=True
    ),
    "gemma3": Gemma3TextConfig(**SIZES | dict(num_hidden_layers=7), head_dim=24, sliding_window=16),
    "gemma3_linear": Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        sliding_window=300,
        layer_types=[_SLIDING, _FULL, _FULL],
        final_logit_softcapping=4.0,
        rope_parameters={
            _FULL: dict(rope_type="linear", factor=8.0, rope_theta=1e6),
            _SLIDING: dict(rope_type="default", rope_theta=1e4),
        },
    ),
    "olmo2": Olmo2Config(**SIZES, attention_bias=True),
    "olmo2_tied": Olmo2Config(**SIZES, tie_word_embeddings=True),
    "olmo3": Olmo3Config(**SIZES | dict(num_hidden_layers=5), sliding_window=20),
    "olmo3_yarn": Olmo3Config(
        **SIZES,
        sliding_window=20,
        layer_types=[_SLIDING, _FULL, _SLIDING],
        rope_parameters={_FULL: dict(_YARN), _SLIDING: dict(rope_type="default", rope_theta=1e4)},
    ),
    "smollm3": SmolLM3Config(**SIZES | dict(num_hidden_layers=5)),
    "smollm3_windows": SmolLM3Config(
        **SIZES, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=12, attention_bias=True
    ),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, **_MOE, head_dim=32),
    "qwen3_moe_tied": Qwen3MoeConfig(
        **SIZES,
        **_MOE | dict(num_experts_per_tok=1),
        norm_topk_prob=True,
        tie_word_embeddings=True,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=30,
        rope_parameters=_YARN,
    ),
    "mixtral": MixtralConfig(**SIZES, head_dim=24, num_local_experts=4),
    "mixtral_windows": MixtralConfig(**SIZES, num_local_experts=10, num_experts_per_tok=10, sliding_window=50),
    "gpt_oss": GptOssConfig(
        **SIZES,
        head_dim=24,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=16,
        swiglu_limit=0.5,
        rope_parameters=_YARN | dict(truncate=False),
    ),
    "gpt_oss_plain": GptOssConfig(
        **SIZES,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=2,
        attention_bias=False,
        tie_word_embeddings=True,
        layer_types=[_FULL, _SLIDING, _FULL],
        rope_parameters=dict(rope_type="default", rope_theta=1e4),
    ),
    "granite": GraniteConfig(
        **SIZES,
        embedding_multiplier=6.0,
        attention_multiplier=0.1,
        residual_multiplier=0.3,
        logits_scaling=2.5,
        attention_bias=True,
        mlp_bias=True,
    ),
}


def roughen(model: PreTrainedModel) -> PreTrainedModel:
    """Float32 with large weights and random biases and norms, so that a mistake anywhere shows."""
    model = model.float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 or name.endswith("bias"):
                p.add_(0.1 * torch.randn_like(p))
            else:
                p.mul_(5)
    return model


@functools.cache
def torch_model(case: str) -> PreTrainedModel:
    """The model of a case, roughened."""
    torch.manual_seed(0)
    # "eager": PyTorch's own attention leaves out Gemma's soft caps.
    return roughen(AutoModelForCausalLM.from_config(CASES[case], attn_implementation="eager"))


def save(case: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The model as a Hugging Face folder."""
    copy.deepcopy(torch_model(case)).to(dtype).save_pretrained(folder)
    return folder
