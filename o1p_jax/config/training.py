"""The settings that training works by."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from o1p_jax.methods.base import Params
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.fields import EVALUATION, SAMPLES, TRAINING, WEIGHTS, check, option


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How samples are packed into rows, and rows into steps."""

    FLAG: ClassVar[str] = "batch."

    sequences: int = option(32, TRAINING)
    """Number of samples in a step (the authors: 32)."""
    row_length: int = option(4096, TRAINING)
    """Number of tokens in a row; a longer sample is left out and counted, never cut."""
    rows_per_microbatch: int = option(8)
    """Rows, on all devices together, that pass through the model at a time; a step adds up as many as it needs."""

    def __post_init__(self) -> None:
        for name in ("sequences", "row_length", "rows_per_microbatch"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the model is computed."""

    FLAG: ClassVar[str] = "compute."

    dtype: Literal["float32", "bfloat16"] = option("bfloat16", SAMPLES, TRAINING, EVALUATION, sampler="jax")
    """Type of activations and matrix products; master weights and moments are always float32."""
    trainable_layers: int | None = option(None, TRAINING)
    """Train only the last so many layers, freezing all else; left out: everything (the authors: 48 of 64 for QwQ)."""
    remat: Literal["none", "light", "full"] = option("light")
    """What the backward pass computes again: nothing; all but matrix products; all but the layers' inputs."""
    logprob_chunk: int = option(512)
    """Number of tokens of a row whose logits exist at a time."""

    def __post_init__(self) -> None:
        layers = self.trainable_layers
        check(self, "trainable_layers", layers is None or layers >= 1, "must be at least 1, or left out for all")
        check(self, "logprob_chunk", self.logprob_chunk >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay to zero."""

    FLAG: ClassVar[str] = "optim."

    learning_rate: float = option(2e-6, TRAINING)
    """The highest learning rate, at the end of the warm-up."""
    warmup: float = option(0.1, TRAINING)
    """Share of the steps in which the learning rate rises."""
    epochs: int = option(1, TRAINING)
    """Number of times that each sample is trained on."""
    b1: float = option(0.9, TRAINING)
    """Decay of Adam's mean of gradients."""
    b2: float = option(0.999, TRAINING)
    """Decay of Adam's mean of squared gradients."""
    adam_eps: float = option(1e-8, TRAINING)
    """What Adam adds to the root of its mean of squared gradients."""
    weight_decay: float = option(0.0, TRAINING)
    """AdamW's decay of weights, a step and unit of learning rate."""
    max_grad_norm: float = option(10.0, TRAINING)
    """Gradients whose norm, over all parameters, is larger are scaled down to it."""
    max_bad_steps: int = option(3)
    """Number of non-finite steps in a row that are skipped before the run stops."""

    def __post_init__(self) -> None:
        check(self, "learning_rate", self.learning_rate > 0, "must be positive")
        check(self, "warmup", 0 <= self.warmup < 1, "must lie in [0, 1)")
        check(self, "epochs", self.epochs >= 1, "must be at least 1")
        for name in ("b1", "b2"):
            check(self, name, 0 <= getattr(self, name) < 1, "must lie in [0, 1)")
        check(self, "adam_eps", self.adam_eps > 0, "must be positive")
        check(self, "weight_decay", self.weight_decay >= 0, "must not be negative")
        check(self, "max_grad_norm", self.max_grad_norm > 0, "must be positive")
        check(self, "max_bad_steps", self.max_bad_steps >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the training state is saved, besides SIGTERM and the end."""

    FLAG: ClassVar[str] = "checkpoint."

    every: int = option(50)
    """Number of steps from one checkpoint to the next."""
    keep: int = option(2)
    """Number of checkpoints that are kept: two, so that a damaged one leaves the one before."""

    def __post_init__(self) -> None:
        check(self, "every", self.every >= 1, "must be at least 1")
        check(self, "keep", self.keep >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The part of a run's configuration that training works by; its fields are called as in `RunConfig`."""

    seed: int = option(0, WEIGHTS, TRAINING)
    method: Params = field(default_factory=O1PrunerParams)
    batch: BatchConfig = field(default_factory=BatchConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
