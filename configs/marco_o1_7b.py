"""Marco-o1-7B as the O1-Pruner paper trained it (arXiv 2501.12570; the authors' code for what the paper leaves out).

    python launch/plan.py --config=marco_o1_7b --topology=h100:1x8 --mesh=8x1    # a TPU pod: v5p:2x2x2
    python launch/train.py --config=marco_o1_7b --mesh=8x1                       # --rounds=3 goes on from there

The temperature is 1 and nothing is cut from the distribution: the objective takes the samples for draws from the model,
which those of the authors (temperature 0.5, top_p 0.8) are not.
"""

from o1p_jax.config.tree import (
    BatchConfig,
    EvaluationConfig,
    OptimConfig,
    ProblemConfig,
    RunConfig,
    SamplingConfig,
)
from o1p_jax.methods.o1_pruner import O1PrunerParams

SYSTEM = "You are a helpful assistant. You should think step-by-step and put your final answer within \\boxed{}."


def config() -> RunConfig:
    return RunConfig(
        run="runs/marco_o1_7b",
        model="AIDC-AI/Marco-o1",
        problems=ProblemConfig(
            train="nlile/hendrycks-MATH-benchmark:train",
            test=(
                "HuggingFaceH4/MATH-500:test",
                "openai/gsm8k@main:test",
                "MARIO-Math-Reasoning/Gaokao2023-Math-En:train",
            ),
            limit_train=5000,
            system_prompt=SYSTEM,
            user_template="Solve the problem: {problem}",
        ),
        sampling=SamplingConfig(sampler="vllm", samples_per_problem=16, max_tokens=8192),
        method=O1PrunerParams(lam=2.0, epsilon=0.2, m=2),
        batch=BatchConfig(sequences=32, row_length=9216),
        optim=OptimConfig(learning_rate=2e-7, warmup=0.1, max_grad_norm=10.0),
        evaluation=EvaluationConfig(max_tokens=8192),
    )
