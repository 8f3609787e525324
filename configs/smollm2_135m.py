"""The real path on a laptop: SmolLM2-135M-Instruct, GSM8K, vLLM on the CPU. docs/real_path.md has the figures.

    python launch/train.py --config=configs/smollm2_135m.py

models/smollm2_135m is made by tools/import_gguf.py, .venv-vllm by docs/install_vllm_cpu.sh; gsm8k/ holds GSM8K's
train.jsonl and test.jsonl (--problems.train and --problems.test name other places).
"""

from o1p_jax.config.tree import (
    BatchConfig,
    CheckpointConfig,
    ComputeConfig,
    EvaluationConfig,
    OptimConfig,
    ProblemConfig,
    RunConfig,
    SamplingConfig,
    VllmConfig,
)
from o1p_jax.methods.o1_pruner import O1PrunerParams


def config() -> RunConfig:
    return RunConfig(
        run="runs/smollm2_135m",
        mesh="1x1",
        model="models/smollm2_135m",
        problems=ProblemConfig(
            train="gsm8k/train.jsonl",
            test=("gsm8k/test.jsonl",),
            limit_train=64,
            limit_test=32,
            user_template="{problem}\nThink step by step and put your final answer within \\boxed{}.",
            max_prompt_tokens=512,
        ),
        sampling=SamplingConfig(
            sampler="vllm",
            samples_per_problem=4,
            max_tokens=256,
            problems_per_shard=16,
            vllm=VllmConfig(python=".venv-vllm/bin/python", dtype="bfloat16", kv_cache_gib=2.0),
        ),
        method=O1PrunerParams(lam=2.0, epsilon=0.2, m=2),
        batch=BatchConfig(sequences=8, row_length=1024),
        compute=ComputeConfig(dtype="float32"),
        optim=OptimConfig(learning_rate=1e-5),
        checkpoint=CheckpointConfig(every=8),
        evaluation=EvaluationConfig(max_tokens=256),
    )
