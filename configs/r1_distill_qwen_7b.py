"""DeepSeek-R1-Distill-Qwen-7B: a starting point for today's reasoning models, not yet tuned on one.

python launch/train.py --config=configs/r1_distill_qwen_7b.py --mesh=8x1
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
        run="runs/r1_distill_qwen_7b",
        model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        problems=ProblemConfig(
            train="nlile/hendrycks-MATH-benchmark:train",
            test=("HuggingFaceH4/MATH-500:test",),
            limit_train=5000,
            # DeepSeek advises against a system prompt.
            user_template="{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.",
        ),
        sampling=SamplingConfig(sampler="vllm", samples_per_problem=16, max_tokens=16384),
        method=O1PrunerParams(lam=2.0, epsilon=0.2, m=2),
        batch=BatchConfig(sequences=32, row_length=16384 + 1024),
        compute=ComputeConfig(remat="full"),
        optim=OptimConfig(learning_rate=2e-6),
        evaluation=EvaluationConfig(samples_per_problem=4, temperature=0.6, top_p=0.95, max_tokens=16384),
    )
