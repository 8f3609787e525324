"""The settings that training works by."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from o1p_jax.methods.base import Params
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.fields import EVALUATION, LARGEST_SEED, SAMPLES, TRAINING, WEIGHTS, check, check_numbers, option


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How many samples a step has, and the limits that they are packed by."""

    FLAG: ClassVar[str] = "batch."

    sequences: int = option(32, TRAINING, least=1, most=2**20)
    """Number of samples in a step (the authors: 32)."""
    row_length: int = option(9216, WEIGHTS, TRAINING, least=1, most=2**21)
    """The most tokens in a row, which must hold the longest prompt with the longest solution."""
    too_long: Literal["refuse", "drop"] = option("refuse", WEIGHTS)
    """Samples longer than a row: refused, or dropped before rewards are normalised, and counted; never cut."""
    hold_out: float = option(0.0, WEIGHTS, least=0, most=0.9)
    """Share of the training problems, by their hash, that are sampled but not trained on; by them the rounds are
    judged, and with more than one round 0 stands for an eighth."""
    tokens_per_device: int | None = option(None, least=1, most=2**24)
    """The most tokens of a device that pass through the model at a time; left out: as many as fit its memory."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the model is computed."""

    FLAG: ClassVar[str] = "compute."

    dtype: Literal["float32", "bfloat16"] = option("bfloat16", SAMPLES, TRAINING, EVALUATION, sampler="jax")
    """Type of activations and matrix products; master weights and moments are always float32."""
    trainable_layers: int | None = option(None, TRAINING, least=1)
    """Train only the last so many layers, freezing all else; left out: everything (the authors: 48 of 64 for QwQ)."""
    remat: Literal["none", "light", "full"] = option("light")
    """What the backward pass computes again: nothing; all but matrix products; all but the layers' inputs."""
    logprob_chunk: int = option(128, least=1)
    """As many logits exist at a time on a device as so many tokens have."""
    deterministic: bool = option(False)
    """The same bits from the same command on GPUs too: no atomic sums, no tuning, vLLM's batch-invariant kernels."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay to zero."""

    FLAG: ClassVar[str] = "optim."

    learning_rate: float = option(2e-6, TRAINING)
    """The highest learning rate, at the end of the warm-up."""
    warmup: float = option(0.1, TRAINING)
    """Share of the steps in which the learning rate rises."""
    epochs: int = option(1, TRAINING, least=1, most=1000)
    """How often each kept sample is trained on."""
    steps: int | None = option(None, TRAINING, least=1, most=10**7)
    """Number of steps, in as many epochs as they take, the last one cut short; left out: those of `epochs`."""
    b1: float = option(0.9, TRAINING)
    """Decay of Adam's mean of gradients."""
    b2: float = option(0.999, TRAINING)
    """Decay of Adam's mean of squared gradients."""
    adam_eps: float = option(1e-8, TRAINING, least=1e-30, most=1)
    """What Adam adds to the root of that mean."""
    weight_decay: float = option(0.0, TRAINING, least=0, most=1000)
    """Decay of the weights a step, times the learning rate."""
    max_grad_norm: float = option(10.0, TRAINING, most=1e30)
    """Longer gradients are scaled down to this length."""
    max_bad_steps: int = option(3, least=1)
    """Number of non-finite steps in a row that are skipped before the run stops."""

    def __post_init__(self) -> None:
        check_numbers(self)
        check(self, "learning_rate", 0 < self.learning_rate <= 10, "must be positive, and at most 10")
        check(self, "warmup", 0 <= self.warmup < 1, "must lie in [0, 1)")
        for name in ("b1", "b2"):
            check(self, name, 0 <= getattr(self, name) < 1, "must lie in [0, 1)")
        check(self, "max_grad_norm", self.max_grad_norm > 0, "must be positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the training state is saved, besides SIGTERM and the end."""

    FLAG: ClassVar[str] = "checkpoint."

    every: int = option(50, least=1)
    """Number of steps from one checkpoint to the next."""
    keep: int = option(2, least=1)
    """Number of checkpoints that are kept: two, so that a damaged one leaves the one before."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The part of a run's configuration that training works by; its fields are called as in `RunConfig`."""

    seed: int = option(0, WEIGHTS, TRAINING, least=0, most=LARGEST_SEED)
    method: Params = field(default_factory=O1PrunerParams)
    batch: BatchConfig = field(default_factory=BatchConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
