"""The embedded default: a small model that overthinks number machines, in minutes on any machine.

python launch/train.py --mesh=8x1
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
)
from o1p_jax.methods.o1_pruner import O1PrunerParams


def config() -> RunConfig:
    return RunConfig(
        problems=ProblemConfig(max_prompt_tokens=128),
        sampling=SamplingConfig(samples_per_problem=8, max_tokens=384, slots=256, problems_per_shard=128),
        # Chosen on embedded:validation, as the learning rate below, see docs/decisions.md.
        rounds=2,
        fresh_problems=True,
        method=O1PrunerParams(lam=4.5, epsilon=0.05, m=8, reward_low=-3.0),
        batch=BatchConfig(sequences=32, row_length=1024),
        compute=ComputeConfig(dtype="float32"),
        optim=OptimConfig(learning_rate=2e-4),
        checkpoint=CheckpointConfig(every=25),
        evaluation=EvaluationConfig(samples_per_problem=4, temperature=1.0, max_tokens=384),
    )
