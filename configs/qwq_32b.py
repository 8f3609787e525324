"""QwQ-32B-Preview as the O1-Pruner paper trained it: the last 48 of 64 layers, lambda 5 (arXiv 2501.12570).

    python launch/plan.py --config=qwq_32b --topology=v5p:4x4x4
    python launch/plan.py --config=qwq_32b --topology=h100:8x8 --mesh=fsdp:16,context:4
    python launch/train.py --config=qwq_32b                        # --rounds=3 goes on from there

A step's 32 solutions fill about 8 rows of the longest one's length: more than 4 devices along the
rows would compute padding, so that "context" splits the rows, and "tensor" the weights.
"""

from o1p_jax.config.tree import (
    BatchConfig,
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
        run="runs/qwq_32b",
        mesh="fsdp:4,context:4,tensor:4",
        model="Qwen/QwQ-32B-Preview",
        problems=ProblemConfig(
            train="nlile/hendrycks-MATH-benchmark:train",
            test=(
                "HuggingFaceH4/MATH-500:test",
                "openai/gsm8k@main:test",
                "MARIO-Math-Reasoning/Gaokao2023-Math-En:train",
            ),
            limit_train=5000,
            user_template="Solve the problem: {problem}",
        ),
        sampling=SamplingConfig(
            sampler="vllm", samples_per_problem=12, max_tokens=8192, vllm=VllmConfig(tensor_parallel=8)
        ),
        method=O1PrunerParams(lam=5.0, epsilon=0.2, m=2),
        batch=BatchConfig(sequences=32, row_length=9216),
        compute=ComputeConfig(trainable_layers=48, remat="full"),
        optim=OptimConfig(learning_rate=2e-6, warmup=0.1, max_grad_norm=10.0),
        evaluation=EvaluationConfig(max_tokens=8192),
    )
