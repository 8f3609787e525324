"""The whole configuration of a run is one tree of frozen dataclasses, which are checked when they are built.

A config file (configs/NAME.py) is a function `config()` that returns a `RunConfig`; every field is also a dotted flag
(`--optim.learning_rate=1e-6`). The module imports NumPy, through `o1p_jax.methods`, but never JAX, which the processes
that sample with vLLM, and those that watch other processes, do without.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from o1p_jax.config.mesh import parse_mesh
from o1p_jax.methods.base import Params
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.fields import EVALUATION, GRADES, SAMPLES, TRAINING, WEIGHTS, check, option
from o1p_jax.runtime.user_code import split

EMBEDDED = "embedded"  # the model and the problem sets that ship with the package


@dataclass(frozen=True, kw_only=True)
class ProblemConfig:
    """The problems of a run, and how a problem becomes a prompt."""

    FLAG: ClassVar[str] = "problems."

    train: str = option("embedded:train", SAMPLES)
    """JSONL or Parquet file, `datasets` name (NAME[@SUBSET]:SPLIT), or embedded:{train,validation,test}."""
    test: str = option("embedded:test", EVALUATION)
    """The problems that the before/after table is made from; takes the same forms as `train`."""
    limit_train: int | None = option(None, SAMPLES)
    """Use only the first so many training problems; left out: all."""
    limit_test: int | None = option(None, EVALUATION)
    prompt_column: str = option("problem", SAMPLES, EVALUATION)
    answer_column: str = option("answer", SAMPLES, EVALUATION)
    """Column of the gold answer. Where its text holds '####' (GSM8K), what stands behind the last '####' counts."""
    level_column: str = option("level", SAMPLES, EVALUATION)
    """Column of the difficulty, which the table has rows for; problems without one share the level '-'."""
    system_prompt: str | None = option(None, SAMPLES, EVALUATION)
    user_template: str = option("{problem}", SAMPLES, EVALUATION)
    """The user's turn of the prompt; {problem} is replaced by the problem's text."""
    max_prompt_tokens: int = option(1024)

    def __post_init__(self) -> None:
        check(self, "user_template", "{problem}" in self.user_template, "must contain {problem}")
        for name in ("limit_train", "limit_test"):
            value = getattr(self, name)
            check(self, name, value is None or value >= 1, "must be at least 1, or left out")
        check(self, "max_prompt_tokens", self.max_prompt_tokens >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class VllmConfig:
    """The settings that only the vLLM engine needs."""

    FLAG: ClassVar[str] = "sampling.vllm."

    python: str | None = option(None)
    """Python interpreter of the environment that holds vLLM; left out: the interpreter that runs this command."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", SAMPLES, EVALUATION, sampler="vllm")
    kv_cache_gib: float | None = option(None)
    """KV cache size in GiB; left out: vLLM takes its share of the accelerator's memory (4 GiB on a CPU)."""
    tensor_parallel: int = option(1)
    """Number of GPUs that one engine uses."""
    replicas: int = option(1)
    """Number of engines that run on this host and share the problems: one for every `tensor_parallel` GPUs is best."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel", "replicas"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How K solutions of each problem are drawn from the reference model."""

    FLAG: ClassVar[str] = "sampling."

    sampler: Literal["jax", "vllm", "server"] = option("jax", SAMPLES, EVALUATION)
    samples_per_problem: int = option(16, SAMPLES)
    """Number of solutions that are sampled for each problem: K of the paper."""
    temperature: float = option(1.0, SAMPLES)
    """1.0, with top_p 1.0 and top_k 0, draws from pi_ref itself as the objective assumes; the authors: 0.5, 0.8."""
    top_p: float = option(1.0, SAMPLES)
    top_k: int = option(0, SAMPLES)
    """Only this many likeliest tokens are drawn from; 0 turns this off."""
    max_tokens: int = option(8192, SAMPLES)
    problems_per_shard: int = option(64)
    """Problems in one shard, which is written whole or not at all: a killed run repeats one shard at most."""
    slots: int = option(128)
    """Number of sequences that the embedded sampler decodes at a time."""
    servers: tuple[str, ...] = option(())
    """Base URLs of OpenAI-compatible endpoints for sampler=server, e.g. http://127.0.0.1:8000/v1."""
    api_key_env: str = option("O1P_API_KEY")
    """Environment variable that holds the servers' key."""
    timeout_s: float = option(600.0)
    """Longest wait for one answer of a server, in seconds."""
    seed: int | None = option(None, SAMPLES)
    """Seed of the samples; left out: the run's own. With this one set, runs with other seeds can share a pool."""
    vllm: VllmConfig = field(default_factory=VllmConfig)

    def __post_init__(self) -> None:
        check(self, "samples_per_problem", self.samples_per_problem >= 1, "K must be at least 1")
        check(self, "temperature", self.temperature >= 0, "must not be negative; 0 is greedy")
        check(self, "top_p", 0 < self.top_p <= 1, "must lie in (0, 1]; 1 turns it off")
        check(self, "top_k", self.top_k >= 0, "must not be negative; 0 turns it off")
        for name in ("max_tokens", "problems_per_shard", "slots"):
            check(self, name, getattr(self, name) >= 1, "must be at least 1")
        check(self, "servers", self.sampler != "server" or bool(self.servers), "sampler=server needs a base URL")


@dataclass(frozen=True, kw_only=True)
class GradingConfig:
    """How a right solution is told from a wrong one."""

    FLAG: ClassVar[str] = "grading."

    grader: str | None = option(None, GRADES, EVALUATION)
    """FILE.py:NAME, a function (solution, answer) -> True, False or None (no answer found); left out: math-verify."""
    timeout_s: int = option(5, GRADES, EVALUATION)
    """Seconds of processor time for one solution; a solution that takes longer is undecided."""

    def __post_init__(self) -> None:
        if self.grader is not None:
            split(f"{self.FLAG}grader", self.grader)
        check(self, "timeout_s", self.timeout_s >= 1, "must be at least 1")


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
    warmup: float = option(0.1, TRAINING)
    """Share of the steps in which the learning rate rises."""
    epochs: int = option(1, TRAINING)
    b1: float = option(0.9, TRAINING)
    b2: float = option(0.999, TRAINING)
    adam_eps: float = option(1e-8, TRAINING)
    weight_decay: float = option(0.0, TRAINING)
    max_grad_norm: float = option(10.0, TRAINING)
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
class EvaluationConfig:
    """How models are compared. Sampler, slots and servers are those of `sampling`."""

    FLAG: ClassVar[str] = "evaluation."

    samples_per_problem: int = option(1, EVALUATION)
    temperature: float = option(0.0, EVALUATION)
    """Temperature of the sampling; 0 is greedy, as in the paper."""
    top_p: float = option(1.0, EVALUATION)
    top_k: int = option(0, EVALUATION)
    max_tokens: int = option(8192, EVALUATION)
    bootstrap: int = option(2000)
    """Number of resamples of the problems that each confidence interval is made from."""
    aes_as_printed: bool = option(False)
    """AES as in the paper's printed column, which rewards lost accuracy like gained; left out: by AES's formula."""
    rollouts_shown: int = option(8)
    """Number of problems whose solutions stand side by side in the report."""

    def __post_init__(self) -> None:
        check(self, "samples_per_problem", self.samples_per_problem >= 1, "must be at least 1")
        several = self.samples_per_problem > 1
        check(self, "temperature", self.temperature >= 0, "must not be negative; 0 is greedy")
        check(self, "samples_per_problem", self.temperature > 0 or not several, "needs evaluation.temperature above 0")
        check(self, "top_p", 0 < self.top_p <= 1, "must lie in (0, 1]; 1 turns it off")
        check(self, "top_k", self.top_k >= 0, "must not be negative; 0 turns it off")
        check(self, "max_tokens", self.max_tokens >= 1, "must be at least 1")
        check(self, "bootstrap", self.bootstrap >= 1, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The part of a run's configuration that training works by; its fields are called as in `RunConfig`."""

    seed: int = option(0, WEIGHTS, TRAINING)
    method: Params = field(default_factory=O1PrunerParams)
    batch: BatchConfig = field(default_factory=BatchConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run depends on."""

    run: str = option("runs/embedded")
    """The run folder: every stage's result lies in it."""
    pool: str | None = option(None)
    """The folder of samples and grades, which many runs can share; left out: pool/ in the run folder."""
    mesh: str = option("8x1")
    """Data-parallel (FSDP) x tensor-parallel devices, axes by name (fsdp:-1,tensor:4), or a pod (v5p-64, h100x8)."""
    seed: int = option(0, SAMPLES, WEIGHTS, TRAINING, EVALUATION)
    model: str = option(EMBEDDED)
    """Hugging Face folder, hub name, or `embedded`. What depends on the model depends on the contents of its files."""
    revision: str | None = option(None)
    """Commit, tag or branch of the model on the hub; a run keeps to the commit that its first start found."""
    problems: ProblemConfig = field(default_factory=ProblemConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    method: Params = field(default_factory=O1PrunerParams)
    """The method and its parameters; --method=NAME chooses another one and its defaults."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        samples = self.sampling.samples_per_problem
        check(self.method, "m", self.method.m <= samples, f"m can't exceed sampling.samples_per_problem={samples}")
        parse_mesh(self.mesh)

    @property
    def training(self) -> TrainingConfig:
        """The part of the configuration that training works by."""
        names = ("seed", "method", "batch", "compute", "optim", "checkpoint")
        return TrainingConfig(**{name: getattr(self, name) for name in names})

    @property
    def sampling_seed(self) -> int:
        """The seed of the training problems' samples."""
        return self.seed if self.sampling.seed is None else self.sampling.seed
