"""Qwen3-8B: three rounds, a starting point that is not tuned yet.

    python launch/plan.py --config=qwen3_8b --topology=h100:1x8    # does it fit, how long?
    python launch/plan.py --config=qwen3_8b --topology=v5p:2x2x4 --mesh=fsdp:16
    python launch/presample.py --config=qwen3_8b    # on as many machines as there are
    python launch/train.py --config=qwen3_8b    # three rounds, tables and page

The first round takes the pool of `presample`; a later one samples by itself. `--rounds=1` stops after the first.
"""

from o1p_jax.config.tree import (
    BatchConfig,
    ComputeConfig,
    EvaluationConfig,
    OptimConfig,
    ProblemConfig,
    RunConfig,
    SamplingConfig,
)
from o1p_jax.methods.o1_pruner import O1PrunerParams


def config() -> RunConfig:
    return RunConfig(
        run="runs/qwen3_8b",
        pool="pools/qwen3_8b",
        mesh="fsdp:8",
        rounds=3,
        model="Qwen/Qwen3-8B",
        problems=ProblemConfig(
            train="agentica-org/DeepScaleR-Preview-Dataset:train",
            test=("HuggingFaceH4/MATH-500:test", "HuggingFaceH4/aime_2024:train", "yentinglin/aime_2025:train"),
            limit_train=5000,
            # As Qwen's model card asks for the box; the template's thinking mode is its default.
            user_template="{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.",
        ),
        sampling=SamplingConfig(sampler="vllm", samples_per_problem=16, max_tokens=16384),
        method=O1PrunerParams(lam=2.0, epsilon=0.2, m=2),
        batch=BatchConfig(sequences=32, row_length=16384 + 1024),
        compute=ComputeConfig(remat="full"),
        optim=OptimConfig(learning_rate=2e-6),
        evaluation=EvaluationConfig(samples_per_problem=4, temperature=0.6, top_p=0.95, top_k=20, max_tokens=32768),
    )
