"""The whole configuration of a run is one tree of frozen dataclasses, which are checked when they are built.

A config file (configs/NAME.py) is a function `config()` that returns a `RunConfig`; every field is also a dotted flag
(`--optim.learning_rate=1e-6`). Every section is imported from here, in config files as in other modules. The module
imports NumPy, through `o1p_jax.methods`, but never JAX, which the processes that sample with vLLM, and those that watch
other processes, do without.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from o1p_jax.config.export import ExportConfig
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.sampling import EvaluationConfig, GradingConfig, ProblemConfig, SamplingConfig, VllmConfig
from o1p_jax.config.training import BatchConfig, CheckpointConfig, ComputeConfig, OptimConfig, TrainingConfig
from o1p_jax.methods.base import Params
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.fields import (
    EVALUATION,
    LARGEST_SEED,
    SAMPLES,
    TRAINING,
    WEIGHTS,
    check,
    check_numbers,
    option,
)

__all__ = [
    "EMBEDDED",
    "FIRST",
    "LAST",
    "BatchConfig",
    "CheckpointConfig",
    "ComputeConfig",
    "EvaluationConfig",
    "ExportConfig",
    "GradingConfig",
    "OptimConfig",
    "ProblemConfig",
    "RunConfig",
    "SamplingConfig",
    "TrainingConfig",
    "VllmConfig",
]

LAST, FIRST = "last", "first"  # what RunConfig.reference may be, beside a folder
EMBEDDED = "embedded"  # the model and the problem sets that ship with the package
HOLD_OUT = 1 / 8
"""The share of the training problems that is held out from several rounds where `batch.hold_out` names none."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run depends on."""

    FLAG: ClassVar[str] = ""

    run: str = option("runs/embedded")
    """The run folder: every stage's result lies in it."""
    pool: str | None = option(None)
    """The folder of samples and grades, which many runs can share; left out: pool/ in the run folder."""
    mesh: str = option("8x1")
    """Data-parallel (FSDP) x tensor-parallel devices, axes by name (fsdp:-1,tensor:4), or a pod (v5p-64, h100x8)."""
    seed: int = option(0, SAMPLES, WEIGHTS, TRAINING, EVALUATION, least=0, most=LARGEST_SEED)
    """Seed of everything that is drawn: samples, choice of samples, order of training, evaluation."""
    model: str = option(EMBEDDED)
    """Hugging Face folder, hub name, or `embedded`. What depends on the model depends on the contents of its files."""
    revision: str | None = option(None)
    """Commit, tag or branch of the model on the hub; a run keeps to the commit that its first start found."""
    problems: ProblemConfig = field(default_factory=ProblemConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    rounds: int = option(1, least=1, most=100)
    """How often the job samples, weighs and trains: the model of one round samples for the next (docs/rounds.md)."""
    reference: str = option(LAST)
    """Whose mean length, accuracy and probabilities a sample is held against: `last`, the model that gave the samples;
    `first`, the one before all rounds; or a run's folder, for the model that the run began from."""
    fresh_problems: bool = option(False)
    """Whether each round has its own part of the training problems, or all rounds have all of them."""
    method: Params = field(default_factory=O1PrunerParams)
    """The method and its parameters; --method=NAME chooses another one and its defaults."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_numbers(self)
        parse_mesh(self.mesh)
        check(
            self.evaluation,
            "sampler",
            (self.sampling.sampler, self.evaluation_sampler) != ("jax", "vllm"),
            "an accelerator's memory stays JAX's after sampling.sampler=jax; set sampling.sampler=vllm as well",
        )
        check(
            self,
            "reference",
            self.reference == LAST or (self.method.BY_MEANS and self.method.reward is None),
            f"method={self.method.name}{' with method.reward' if self.method.reward else ''} compares a problem's "
            f"samples with one another alone; set reference={LAST}, or take method=o1_pruner and its own reward",
        )
        check(
            self,
            "fresh_problems",
            not self.splits_problems or self.reference != FIRST,
            f"reference={FIRST} needs the first model's solutions of every round's problems; set fresh_problems=False "
            f"or reference={LAST}",
        )
        check(
            self,
            "fresh_problems",
            not self.splits_problems or self.problems.parts == 1,
            f"splits the problems by rounds; set fresh_problems=False, or leave problems.parts={self.problems.parts} "
            "out",
        )
        if self.pool is None:  # a pool that was imported has its own number of samples
            self.check_samples()
        longest = self.method.UNIT * (self.problems.max_prompt_tokens + self.sampling.max_tokens)
        twice = f"{self.method.UNIT} times " if self.method.UNIT > 1 else ""  # samples that share a row
        check(
            self.batch,
            "row_length",
            self.batch.row_length >= longest or self.batch.too_long == "drop",
            f"must be at least {longest}, {twice}problems.max_prompt_tokens={self.problems.max_prompt_tokens} + "
            f"sampling.max_tokens={self.sampling.max_tokens}; change one of them, or say batch.too_long=drop, which "
            "leaves longer samples out",
        )
        check(
            self.batch,
            "sequences",
            self.batch.sequences % self.method.UNIT == 0,
            f"must be a multiple of {self.method.UNIT}: method={self.method.name} trains on units of so many samples",
        )

    def check_samples(self) -> None:
        """Raises BadInput where the method asks for other samples than `sampling` draws for each problem."""
        samples, method = self.sampling.samples_per_problem, self.method
        check(method, "k", (method.k or 1) <= samples, f"can't exceed sampling.samples_per_problem={samples}")
        check(method, "m", method.m <= samples, f"m can't exceed sampling.samples_per_problem={samples}")
        check(
            self.sampling,
            "samples_per_problem",
            min(samples, method.k or samples) >= method.fewest_samples,
            f"method={method.name} compares a problem's samples with one another; take at least "
            f"{method.fewest_samples}",
        )

    def of_round(self, number: int) -> "RunConfig":
        """Returns the configuration of one round, from 1 on, as that of a run by itself; of one round it is this one.

        What the round begins from, the round before, is not put in: its model, and no pool from elsewhere.
        """
        if self.rounds == 1:
            return self
        return replace(
            self,
            rounds=1,
            fresh_problems=False,
            run=str(Path(self.run) / f"round-{number}"),
            problems=replace(self.problems, parts=self.rounds, part=number) if self.splits_problems else self.problems,
            batch=replace(self.batch, hold_out=self.batch.hold_out or HOLD_OUT),
        )

    @property
    def splits_problems(self) -> bool:
        """Whether there are several rounds, each with its own part of the training problems."""
        return self.fresh_problems and self.rounds > 1

    @property
    def training(self) -> TrainingConfig:
        """The part of the configuration that training works by."""
        names = ("seed", "method", "batch", "compute", "optim", "checkpoint")
        return TrainingConfig(**{name: getattr(self, name) for name in names})

    @property
    def evaluation_sampler(self) -> Literal["jax", "vllm", "server"]:
        """The sampler that models are compared by."""
        return self.evaluation.sampler or self.sampling.sampler

    @property
    def sampling_seed(self) -> int:
        """The seed of the training problems' samples."""
        return self.seed if self.sampling.seed is None else self.sampling.seed
