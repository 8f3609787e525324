"""How fast are solutions sampled? Engines kept full against drained ones, and sampler against sampler.

.venv-vllm/bin/python benchmarks/sampling.py --repeats=3

Every measurement is a process of its own, bound to one core and one thread, and the sides of a comparison take turns.
Models are random, and draw from nearly even distributions: a share of the vocabulary ends a completion, so that lengths
are ragged, geometric with a cut. Compiling, loading and a first few completions do not count.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.stages import cli

TINY = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}  # fmt: skip
SMOLLM2 = {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}  # fmt: skip
SLOTS, EACH = 64, 8
"""Sequences at a time, and samples of a prompt, where samplers are compared."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    repeats: int = 3
    shards: int = 12
    """Shards of 128 and of 512 requests, of a mean of 100 tokens, in vLLM's 128 sequences."""
    prompts: int = 64
    """Prompts of 50 to 150 tokens with 8 samples each, of a mean of 64 tokens, cut at 256."""
    side: str | None = None
    """Measures one side in this process; left out: all, and prints the table."""
    folder: str | None = None
    """The model of that side."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    if args.side is not None:
        kind, *rest = args.side.split("/")
        of_side = {"vllm-shards": _shards, "transformers": _transformers}.get(kind, _sampler)
        tokens, clock, cpu = of_side(args, kind, *map(int, rest))
        print(json.dumps([tokens / clock, tokens / cpu]))
        return
    print(f"{os.cpu_count()} cores, {_processor()}; medians of {args.repeats}, tokens a second (of the CPU's time)")
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in (("tiny", TINY), ("smollm2", SMOLLM2)):
            _write_model(Path(folder) / name, shape)
        for problems in (8, 32):
            _compare(args, f"{folder}/tiny", [f"vllm-shards/{problems}/1", f"vllm-shards/{problems}/8"])
        _compare(args, f"{folder}/smollm2", ["transformers", "vllm", "jax"])


def _compare(args: Arguments, folder: str, sides: list[str]) -> None:
    """Measures the sides in turn, and prints a line for each, with its ratio to the first."""
    found: dict[str, list[list[float]]] = {side: [] for side in sides}
    own = [f"--shards={args.shards}", f"--prompts={args.prompts}", f"--folder={folder}"]
    one_core = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    for _ in range(args.repeats):
        for side in sides:
            child = [sys.executable, __file__, f"--side={side}", *own]
            out = subprocess.run(child, env=os.environ | one_core, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[side].append(json.loads(out.splitlines()[-1]))
    first = [statistics.median(values) for values in zip(*found[sides[0]], strict=True)]
    for side, rates in found.items():
        clock, cpu = (statistics.median(values) for values in zip(*rates, strict=True))
        print(f"{side:18} {clock:9,.1f} ({cpu:9,.1f})   {clock / first[0]:.2f} ({cpu / first[1]:.2f})", flush=True)


def _shards(args: Arguments, _: str, problems: int, in_flight: int) -> tuple[int, float, float]:
    """Fills a pool by vLLM; returns the tokens, and the seconds by the clock and of the CPU."""
    from o1p_jax.config.tree import SamplingConfig, VllmConfig
    from o1p_jax.data.pool import Pool
    from o1p_jax.data.records import Problem
    from o1p_jax.sampling import SamplingParams, make_sampler
    from o1p_jax.stages import presample as stage

    names = [f"{i:05}" for i in range(problems * args.shards)]
    how = SamplingParams(max_tokens=400, stop_ids=tuple(range(10)))
    began = []

    def made(*args, **kwargs):
        sampler = make_sampler(*args, **kwargs)
        began.append((time.monotonic(), time.process_time()))
        return sampler

    class NoText:
        def __init__(self, folder: Path):
            pass

        def decode(self, ids: list[int]) -> str:
            return ""

    stage.Prompter = NoText  # type: ignore[assignment, misc]  # the model has no tokenizer
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool.create(
            f"{folder}/pool",
            identity={},
            facts={"draw": {"samples_per_problem": 16, "seed": 0, **asdict(how)}},
            problems=[Problem(problem_id=n, source="", split="", level="", problem="", answer="") for n in names],
            prompts={n: [random.Random(n).randrange(20, 1000) for _ in range(20)] for n in names},
            problems_per_shard=problems,
        )
        vllm = VllmConfig(dtype="float32", kv_cache_gib=1.0, engine_args={"max_num_seqs": 128})
        sampling = SamplingConfig(sampler="vllm", vllm=vllm, shards_in_flight=in_flight)
        stage.presample(
            stage.SampleJob(title="", pools=(str(pool.path),), folder=args.folder or "", sampling=sampling, mesh="1x1",
                            dtype="float32"),
            make_sampler=made,
        )  # fmt: skip
        clock, cpu = time.monotonic() - began[0][0], time.process_time() - began[0][1]
        return sum(map(len, pool.samples.read(["completion_ids"])["completion_ids"].to_pylist())), clock, cpu


def _prompts(count: int, seed: int) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(1000, 49_152) for _ in range(rng.randrange(50, 150))) for _ in range(count)]


STOPS, LONGEST = tuple(range(49_152 // 64)), 256


def _sampler(args: Arguments, kind: str) -> tuple[int, float, float]:
    """Samples by vLLM or the embedded sampler; returns as `_shards` does."""
    from o1p_jax.config.tree import SamplingConfig, VllmConfig
    from o1p_jax.data.records import Request
    from o1p_jax.sampling import SamplingParams, make_sampler, sample

    vllm = VllmConfig(dtype="float32", kv_cache_gib=2.0, engine_args={"max_num_seqs": SLOTS})
    config = SamplingConfig(sampler=kind, slots=SLOTS, vllm=vllm)  # type: ignore[arg-type]
    how = SamplingParams(max_tokens=LONGEST, stop_ids=STOPS)
    sampler = make_sampler(config, Path(args.folder or ""), how, mesh="1x1", dtype="float32", max_length=150 + LONGEST)

    def run(count: int, seed: int) -> int:
        requests = [Request(p, seed + k) for p in _prompts(count, seed) for k in range(EACH)]
        return sum(len(done.token_ids) for done in sample(sampler, requests))

    return _timed(lambda: run(SLOTS // EACH + 2, 1), lambda: run(args.prompts, 2))


def _transformers(args: Arguments, _: str) -> tuple[int, float, float]:
    """Samples by transformers, a batch of 64 after the other; returns as `_shards` does."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32)

    def run(count: int, seed: int) -> int:
        prompts, tokens = _prompts(count, seed), 0
        for first in range(0, count, SLOTS // EACH):
            part = prompts[first : first + SLOTS // EACH]
            width = max(map(len, part))
            ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in part])
            with torch.no_grad():
                out = model.generate(
                    ids, attention_mask=(ids > 0).long(), do_sample=True, top_k=0, num_return_sequences=EACH,
                    max_new_tokens=LONGEST, eos_token_id=list(STOPS), pad_token_id=0,
                )[:, width:]  # fmt: skip
            ends = torch.isin(out, torch.tensor(STOPS))
            tokens += sum(int(row.nonzero()[0]) + 1 if row.any() else out.shape[1] for row in ends)
        return tokens

    return _timed(lambda: run(1, 1), lambda: run(args.prompts, 2))


def _timed(warm_up, run) -> tuple[int, float, float]:
    warm_up()
    clock, cpu = time.monotonic(), time.process_time()
    tokens = run()
    return tokens, time.monotonic() - clock, time.process_time() - cpu


def _write_model(folder: Path, shape: dict[str, int]) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    common = {"max_position_embeddings": 2048, "tie_word_embeddings": True, "eos_token_id": 3, "bos_token_id": None}
    Qwen3ForCausalLM(Qwen3Config(**shape, **common, dtype=torch.float32)).save_pretrained(folder)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main(command)
