"""The settings of problems, of their samples and grades, and of the comparison of two models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from o1p_jax.runtime.fields import EVALUATION, GRADES, LARGEST_SEED, SAMPLES, check, check_numbers, option
from o1p_jax.runtime.files import is_unicode
from o1p_jax.runtime.user_code import split

_RENDERERS_OWN = (
    "chat_template",
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "strftime_now",
)
"""Names of the template's variables that are not the user's."""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class ProblemConfig:
    """The problems of a run, and how a problem becomes a prompt."""

    FLAG: ClassVar[str] = "problems."

    train: str = option("embedded:train", SAMPLES)
    """JSONL or Parquet file, `datasets` name (NAME[@SUBSET]:SPLIT), or embedded:{train,validation,test}."""
    test: tuple[str, ...] = option(("embedded:test",), EVALUATION)
    """The problem sets that the before/after tables are made from, one or several; each takes the forms of `train`."""
    limit_train: int | None = option(None, SAMPLES, least=1)
    """Use only so many training problems, chosen by their hash, for any order of the set and any seed; left out: all.
    An embedded set has its levels in turn, and gives its first ones."""
    limit_test: int | None = option(None, EVALUATION, least=1)
    """Use only so many problems of each test set, chosen as those of `limit_train`; left out: all."""
    parts: int = option(1, SAMPLES, least=1, most=100)
    """The training problems are split, by their hash, into so many parts of about the same size."""
    part: int = option(1, SAMPLES, least=1)
    """The part that is used, from 1 on."""
    check_overlap: bool = option(True)
    """Whether test problems are looked for among the training problems (docs/evaluation.md); nothing is refused."""
    prompt_column: str | None = option(None, SAMPLES, EVALUATION)
    """Column of the problem, with dots for one inside another (extra_info.question); left out: problem, or question in
    a set without a column of that name. It holds text, which `system_prompt` and `user_template` make a prompt of, or a
    chat (a list of role and content), used as it is."""
    answer_column: str = option("answer", SAMPLES, EVALUATION)
    """Column of the gold answer, such as answer or reward_model.ground_truth: text, a number, or a list of one.
    Where its text holds '####' (GSM8K), what stands behind the last '####' counts."""
    level_column: str = option("level", SAMPLES, EVALUATION)
    """Column of the difficulty, which the table has rows for; problems without one share the level '-'."""
    system_prompt: str | None = option(None, SAMPLES, EVALUATION)
    """The system turn of the prompt; left out: none, or the chat template's own."""
    user_template: str = option("{problem}", SAMPLES, EVALUATION)
    """The user's turn of the prompt; {problem} is replaced by the problem's text."""
    max_prompt_tokens: int = option(1024, least=1, most=2**20)
    """Number of tokens that a prompt may have."""
    too_long: Literal["refuse", "skip"] = option("refuse", SAMPLES, EVALUATION)
    """What happens to a problem whose prompt is longer than that: the run is refused, or the problem left out."""
    chat_template: str | None = option(None, SAMPLES, EVALUATION)
    """Name of the chat template, for a tokenizer that has several; left out: its default one."""
    template_kwargs: Mapping[str, bool | int | float | str] | None = option(None, SAMPLES, EVALUATION)
    """Variables for the chat template, such as enable_thinking False reasoning_effort low."""
    date: str | None = option(None, SAMPLES, EVALUATION)
    """The day (YYYY-MM-DD) that the chat template takes for today's; left out: the day of the pool's first start."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if isinstance(self.test, str):  # a config file's, or that of a run of an earlier version
            object.__setattr__(self, "test", (self.test,))
        check(self, "part", self.part <= self.parts, f"must be at most problems.parts={self.parts}")
        check(self, "test", bool(self.test), "name at least one problem set, such as embedded:test")
        check(self, "user_template", "{problem}" in self.user_template, "must contain {problem}")
        for name in ("user_template", "system_prompt"):
            check(self, name, is_unicode(getattr(self, name) or ""), "holds half of a surrogate pair; write it anew")
        for name, value in (self.template_kwargs or {}).items():
            ok = name.isidentifier() and name not in _RENDERERS_OWN
            check(self, "template_kwargs", ok, f"{name} can't be set; name a variable of the chat template")
            ok = str(value) not in ("true", "false")
            check(self, "template_kwargs", ok, f"text for {name}, which counts as true; write True or False")
        check(self, "date", self.date is None or _is_date(self.date), "must be a day, such as 2026-11-30")


_LONGEST = 2**20
"""The largest number of tokens of a solution."""


_OTHER_MODEL = "would draw from another model than the pool says; change the model's files instead"
_SET_BY = {
    "model": "set model",
    "dtype": "set sampling.vllm.dtype",
    "kv_cache_memory_bytes": "set sampling.vllm.kv_cache_gib",
    "tensor_parallel_size": "set sampling.vllm.tensor_parallel",
    "data_parallel_size": "set sampling.vllm.replicas",
    "max_model_len": "it follows from sampling.max_tokens and the longest prompt",
    "quantization": _OTHER_MODEL,
    "kv_cache_dtype": _OTHER_MODEL,
    "hf_overrides": _OTHER_MODEL,
    "load_format": _OTHER_MODEL,
    "logits_processors": _OTHER_MODEL,
    "speculative_config": "draws by other random numbers than the samples' seeds; leave it out",
}
"""Arguments of vLLM's engine that `sampling.vllm.engine_args` can't hold -> what to do instead."""
_ALWAYS = (
    "enable_chunked_prefill",
    "skip_tokenizer_init",
    "trust_remote_code",
    "disable_log_stats",
    "stream_interval",
    "use_tqdm_on_load",
)
"""Arguments that are the sampler's own, in all cases."""


@dataclass(frozen=True, kw_only=True)
class VllmConfig:
    """The settings that only the vLLM engine needs."""

    FLAG: ClassVar[str] = "sampling.vllm."

    python: str | None = option(None)
    """Python interpreter of the environment that holds vLLM; left out: the interpreter that runs this command."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", SAMPLES, EVALUATION, sampler="vllm")
    """Type that vLLM computes in; auto: the type of the model's files."""
    kv_cache_gib: float | None = option(None, most=16_384)
    """KV cache size in GiB; left out: vLLM takes its share of the accelerator's memory (4 GiB on a CPU)."""
    tensor_parallel: int = option(1, least=1, most=1024)
    """Number of GPUs that one engine uses."""
    replicas: int | None = option(None, least=1, most=1024)
    """Number of engines that run on this host and share the problems; left out: as many as its GPUs serve, or one."""
    engine_args: Mapping[str, bool | int | float | str] | None = option(None)
    """Further arguments of vLLM's engine by name, such as gpu_memory_utilization 0.8 max_num_seqs 512. They are for
    speed and memory and change no distribution, so that a pool may be gone on with under others."""

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in self.engine_args or {}:
            instead = _SET_BY.get(name) or ("the sampler sets it itself; leave it out" if name in _ALWAYS else None)
            check(self, "engine_args", instead is None, f"{name}: {instead}")
        check(self, "kv_cache_gib", self.kv_cache_gib is None or self.kv_cache_gib > 0, "must be positive, or left out")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How K solutions of each problem are drawn from the reference model."""

    FLAG: ClassVar[str] = "sampling."

    sampler: Literal["jax", "vllm", "server"] = option("jax", SAMPLES, EVALUATION)
    """The embedded sampler, vLLM's offline engine, or servers (docs/serving.md)."""
    samples_per_problem: int = option(16, SAMPLES, least=1, most=10_000)
    """Number of solutions that are sampled for each problem: K of the paper."""
    temperature: float = option(1.0, SAMPLES)
    """1.0, with top_p 1.0 and top_k 0, draws from pi_ref itself as the objective assumes; the authors: 0.5, 0.8."""
    top_p: float = option(1.0, SAMPLES)
    """Only the smallest set of likeliest tokens with this much probability is drawn from; 1 turns this off."""
    top_k: int = option(0, SAMPLES)
    """Only this many likeliest tokens are drawn from; 0 turns this off."""
    max_tokens: int = option(8192, SAMPLES, least=1, most=_LONGEST)
    """Number of tokens after which a solution is cut off."""
    problems_per_shard: int = option(64, least=1)
    """Problems in one shard, which is written whole or not at all."""
    shards_in_flight: int = option(8, least=1, most=1024)
    """Shards that a process samples at a time at most: requests of the next ones enter while the last of earlier ones
    still run, so that an engine stays full. What a killed process repeats is these."""
    slots: int = option(128, least=1, most=2**16)
    """Number of sequences that the embedded sampler decodes at a time, or of requests that servers work on."""
    servers: tuple[str, ...] = option(())
    """Base URLs of OpenAI-compatible endpoints for sampler=server, e.g. http://127.0.0.1:8000/v1."""
    served_model: str | None = option(None)
    """The name of the model on its servers; left out: the only one that they serve."""
    api_key_env: str = option("O1P_API_KEY")
    """Environment variable that holds the servers' key."""
    timeout_s: float = option(600.0, most=7 * 24 * 3600)
    """Longest wait for one answer of a server, or for one step of vLLM's engine, in seconds."""
    seed: int | None = option(None, SAMPLES, least=0, most=LARGEST_SEED)
    """Seed of the samples; left out: the run's own. With this one set, runs with other seeds can share a pool."""
    vllm: VllmConfig = field(default_factory=VllmConfig)

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_drawing(self)
        _check_servers(self)
        check(self, "servers", self.sampler != "server" or bool(self.servers), "sampler=server needs a base URL")
        check(self, "timeout_s", self.timeout_s > 0, "must be positive")


@dataclass(frozen=True, kw_only=True)
class GradingConfig:
    """How a right solution is told from a wrong one."""

    FLAG: ClassVar[str] = "grading."

    grader: str | None = option(None, GRADES, EVALUATION)
    """FILE.py:NAME, a function (solution, answer) -> True, False or None (no answer found); left out: math-verify."""
    timeout_s: int = option(5, GRADES, EVALUATION, least=1, most=86_400)
    """Seconds of processor time for one solution; a solution that takes longer is undecided."""
    unclosed_thought: bool = option(False, GRADES, EVALUATION)
    """Whether a solution that never closes its thought (cut off, as a rule) may have its answer in there."""
    allow_unfinished: bool = option(False, GRADES, EVALUATION)
    """Whether sums and products still to do (17 * 6 - 9) count as the number that they give; see docs/grading.md."""

    def __post_init__(self) -> None:
        if self.grader is not None:
            split(f"{self.FLAG}grader", self.grader)
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How models are compared. Slots, the servers' key and the settings of vLLM are those of `sampling`."""

    FLAG: ClassVar[str] = "evaluation."

    sampler: Literal["jax", "vllm", "server"] | None = option(None, EVALUATION)
    """The sampler of the comparison; left out: that of `sampling`."""
    servers: tuple[str, ...] = option(())
    """Servers of the model that is compared with the base, such as the export; `sampling.servers` are the base's."""
    served_model: str | None = option(None)
    """The name of the model on `evaluation.servers`; left out: the only one that they serve."""
    samples_per_problem: int = option(1, EVALUATION, least=1, most=10_000)
    """Number of solutions that each model gives for each test problem."""
    temperature: float = option(0.0, EVALUATION)
    """Temperature of the sampling; 0 is greedy, as in the paper."""
    top_p: float = option(1.0, EVALUATION)
    """As `sampling.top_p`."""
    top_k: int = option(0, EVALUATION)
    """As `sampling.top_k`."""
    max_tokens: int = option(8192, EVALUATION, least=1, most=_LONGEST)
    """As `sampling.max_tokens`."""
    budgets: tuple[int, ...] = option(())
    """Token budgets in rising order that accuracy is told at: right, and no longer than the budget; left out: an
    eighth, a quarter, half and all of `max_tokens`."""
    bootstrap: int = option(2000, least=1, most=100_000)
    """Number of resamples of the problems that each confidence interval is made from."""
    aes_as_printed: bool = option(False)
    """AES as in the paper's printed column, which rewards lost accuracy like gained; left out: by AES's formula."""
    rollouts_shown: int = option(8, least=0, most=10_000)
    """Number of problems whose solutions stand side by side in the report."""

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_drawing(self)
        _check_servers(self)
        rising = self.budgets == tuple(sorted({*self.budgets})) and all(0 < b <= self.max_tokens for b in self.budgets)
        remedy = f"must rise, from 1 at least to {self.FLAG}max_tokens={self.max_tokens} at most"
        check(self, "budgets", rising, remedy)

    @property
    def ladder(self) -> tuple[int, ...]:
        """The token budgets that accuracy is told at."""
        return self.budgets or tuple(sorted({-(-self.max_tokens // part) for part in (8, 4, 2, 1)}))


def _check_servers(section: SamplingConfig | EvaluationConfig) -> None:
    """Raises BadInput unless the servers are base URLs."""
    for url in section.servers:
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets or a port that make no sense
            right = False
        check(section, "servers", right, f"{url} is no base URL such as http://127.0.0.1:8000/v1")


def _check_drawing(draw: SamplingConfig | EvaluationConfig) -> None:
    """Raises BadInput where tokens can't be drawn so, or several samples of a problem would all be the same."""
    right = draw.temperature == 0 or 0.01 <= draw.temperature <= 100
    check(draw, "temperature", right, "must be 0, which is greedy, or lie in [0.01, 100]; vLLM takes 0.01 for less")
    check(draw, "top_p", 0 < draw.top_p <= 1, "must lie in (0, 1]; 1 turns it off")
    check(draw, "top_k", 0 <= draw.top_k <= LARGEST_SEED, "must not be negative; 0 turns it off")
    greedy = "temperature=0" if draw.temperature == 0 else "top_k=1" if draw.top_k == 1 else None
    alike = f"samples drawn with {draw.FLAG}{greedy} are all the same; raise it, or take one sample"
    check(draw, "samples_per_problem", greedy is None or draw.samples_per_problem == 1, alike)
