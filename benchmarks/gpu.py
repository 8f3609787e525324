"""What one GPU does: `python -m benchmarks.gpu`, in under ten minutes; --small tries the same out on any machine.

Attention is held against float32 and timed for kinds of layers and segments a row; then come a training step of a model
of 1.5 billion parameters, the embedded sampler, and whether two equal runs give the same bits. gpu.json and gpu.md are
written after each part. The command needs no package but jax, flax, optax, numpy, jaxtyping, transformers and
safetensors. It ends with code 1 where a part failed or attention is wrong.
"""

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o1p_jax.config.tree import BatchConfig, ComputeConfig, RunConfig
from o1p_jax.data.records import Request, TrainingSample
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.attention.packed import packed_attention, served
from o1p_jax.models.attention.scoring import Scoring
from o1p_jax.models.decoder import init_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.planning.roofline import step_flops
from o1p_jax.sampling.base import SamplingParams, sample
from o1p_jax.sampling.engine import JaxSampler
from o1p_jax.training.packing import assemble
from o1p_jax.training.shapes import Shape
from o1p_jax.training.step import make_train_step, put_batch, state_shardings, train_state

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
PEAKS = {"H100": 989e12, "H200": 989e12, "B200": 2250e12}
"""Card -> bfloat16 operations a second (NVIDIA's data sheets, SXM, dense)."""
KINDS = {"full": (None, False), "window": (1024, False), "sinks": (None, True)}
"""Kind of layers -> its window, and whether heads have sinks."""
WORST = 0.02
"""The largest error of attention in bfloat16, as a share of the float32 result's norm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is computed."""

    exact: int = 2048
    """Tokens of a row that is held against float32."""
    length: int = 16384
    heads: int = 28
    kv_heads: int = 4
    head_dim: int = 128
    step: int = 8192
    """Tokens of a training step's row."""
    slots: int = 128
    drawn: int = 256
    """Tokens of a sample."""
    repeats: int = 5


SMALL = Sizes(exact=96, length=256, heads=4, kv_heads=2, head_dim=16, step=128, slots=4, drawn=8, repeats=2)


def attention_inputs(sizes: Sizes, length: int, segments: int) -> tuple[Any, ...]:
    """Queries, keys, values, the output's derivative, sinks; and one row of segments, the last tokens padding."""
    keys = jax.random.split(jax.random.key(0), 5)
    heads = (sizes.heads, sizes.kv_heads, sizes.kv_heads, sizes.heads)
    arrays = [
        jax.random.normal(key, (1, length, n, sizes.head_dim), jnp.bfloat16)
        for key, n in zip(keys, heads, strict=False)
    ]
    numbers = np.minimum(np.arange(length) // (length // segments), segments - 1) + 1
    numbers[length - length // 64 :] = 0
    return *arrays, jax.random.normal(keys[4], (sizes.heads,)), jnp.asarray(numbers[None].astype(np.int32))


def attention(
    window: int | None, with_sinks: bool, segments: int | None, q: Any, k: Any, v: Any, d: Any, sinks: Any, numbers: Any
) -> tuple[Any, ...]:
    """The attention of the kind of layers and its derivatives by queries, keys, values (and sinks)."""
    real = (numbers > 0)[..., None, None]

    def masked(q: Any, k: Any, v: Any, sinks: Any) -> Any:
        out = packed_attention(
            q, k, v, numbers, (window,), 0, Scoring(0.1), sinks if with_sinks else None, most_segments=segments
        )
        return jnp.where(real, out, 0)

    out, pull = jax.vjp(masked, q, k, v, sinks)
    return out, *pull(d.astype(out.dtype))[: 4 if with_sinks else 3]


def parity(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The errors of attention in bfloat16, by the kernel and by the loop, against the loop in float32."""
    for kind, (window, with_sinks) in KINDS.items():
        inputs = attention_inputs(sizes, sizes.exact, 5)
        window = window and sizes.exact // 16  # shorter than the segments
        with jax.default_matmul_precision("highest"):
            wide = [x.astype(jnp.float32) for x in inputs[:-1]]
            exact = jax.jit(partial(attention, window, with_sinks, None))(*wide, inputs[-1])
        for segments in (5, None):
            found = jax.jit(partial(attention, window, with_sinks, segments))(*inputs)
            errors = [
                float(jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b))
                for a, b in zip(found, exact, strict=True)
            ]
            names = ("out", "d_queries", "d_keys", "d_values", "d_sinks")
            by = served(jnp.bfloat16, None, inputs[0].shape, segments).by
            yield {"kind": kind, "by": by, **dict(zip(names, errors, strict=False))}
            if not max(errors) < WORST:
                raise ValueError(f"{kind} by {by}: errors of {errors}, at most {WORST} is right")


def seconds(f: Callable[[], Any], repeats: int) -> float:
    """The median of the seconds that `f` takes, after one run that compiles it."""
    jax.block_until_ready(f())
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(f())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def attention_times(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The time of a layer's attention forward, and forward and backward, of one row; by the loop too, for two cases."""
    for kind, (window, with_sinks) in KINDS.items():
        for segments in (1, 4, 16, 64):
            for told in (segments, None) if kind == "full" and segments in (1, 16) else (segments,):
                inputs = attention_inputs(sizes, sizes.length, segments)
                both = jax.jit(partial(attention, window, with_sinks, told))
                forward = jax.jit(lambda *inputs, f=both: f(*inputs)[0])
                taken = [seconds(partial(f, *inputs), sizes.repeats) for f in (forward, both)]
                long = sizes.length // segments
                seen = min(window or long, long)
                pairs = sizes.length * (seen - seen * (seen - 1) / (2 * long))
                flops = 4 * pairs * sizes.heads * sizes.head_dim
                yield {
                    "kind": kind, "segments": segments,
                    "by": served(jnp.bfloat16, None, inputs[0].shape, told).by,
                    "forward_ms": 1e3 * taken[0], "both_ms": 1e3 * taken[1],
                    "forward_tflops": flops / taken[0] / 1e12, "both_tflops": 3 * flops / taken[1] / 1e12,
                }  # fmt: skip


def model(small: bool) -> Any:
    """The 1.5B model's configuration, or a tiny one of the same family."""
    known = json.loads((Path(__file__).parents[1] / "o1p_jax" / "planning" / "hub.json").read_text())[MODEL]
    tiny = {
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 2, "vocab_size": 256, "max_window_layers": 2,
    }  # fmt: skip
    return read_config(known | tiny if small else known)


def training(sizes: Sizes, small: bool) -> Iterator[dict[str, Any]]:
    """A step of two microbatches of one row of 8 samples; and whether the first step twice gives the same bits."""
    decoder, mesh, in_row = model(small), make_mesh("1x1"), 8
    compute = ComputeConfig(dtype="bfloat16", remat="full")
    cfg = RunConfig(batch=BatchConfig(sequences=2 * in_row, row_length=sizes.step, too_long="drop"), compute=compute)
    rng, long = np.random.default_rng(0), sizes.step // in_row

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, decoder.vocab_size, n).tolist())

    samples = [
        TrainingSample(problem_id=str(i), sample_idx=0, prompt_ids=ids(4), completion_ids=ids(long - 4),
                       weight=1.0 - 2 * (i % 2))
        for i in range(2 * in_row)
    ]  # fmt: skip
    reference = [np.full(long - 4, -np.log(decoder.vocab_size), np.float32) for _ in samples]
    rows, shape = [[list(range(in_row))], [list(range(in_row, 2 * in_row))]], Shape(1, sizes.step)
    batches = (put_batch(assemble(samples, reference, rows, shape, 2, in_row), mesh, 1),)
    shardings: Any = None

    def begin() -> Any:
        nonlocal shardings
        params = init_params(decoder, jax.random.key(0), mesh)
        shardings = state_shardings(param_shardings(decoder, mesh), params, cfg.optim, mesh)
        state = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=shardings, donate_argnums=0)(params)
        return state, type(params)({})

    def digest(tree: Any) -> str:
        found = hashlib.sha256()
        for leaf in jax.tree.leaves(tree):
            found.update(np.asarray(leaf).tobytes())
        return found.hexdigest()

    state, none = begin()
    step = make_train_step(decoder, None, cfg.training, 10, mesh, shardings)
    digests = []
    for _ in range(2):
        state, metrics = step(state, none, batches)
        digests.append((digest(state.params), float(metrics["loss"])))
        del state
        state, _ = begin()
    taken = []
    for _ in range(1 + sizes.repeats):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, none, batches))
        taken.append(time.perf_counter() - start)
    taken_s, tokens = statistics.median(taken[1:]), 2 * sizes.step
    peak = next((flops for name, flops in PEAKS.items() if name in jax.devices()[0].device_kind), None)
    rate = step_flops(decoder, tokens, long) / taken_s
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    yield {
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)), "tokens": tokens,
        "tokens_per_s": tokens / taken_s, "mfu": None if peak is None else rate / peak, "step_s": taken_s,
        "peak_gib": None if memory is None else memory / 2**30, "loss": digests[0][1],
        "same_bits": digests[0] == digests[1],
    }  # fmt: skip


def sampler(sizes: Sizes, small: bool) -> Iterator[dict[str, Any]]:
    """Tokens a second of the embedded sampler, two requests a slot; and whether it draws the same twice."""
    decoder, mesh = model(small), make_mesh("1x1")
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), init_params(decoder, jax.random.key(0), mesh))
    how = SamplingParams(temperature=1.0, top_p=0.95, max_tokens=sizes.drawn, stop_ids=())
    engine = JaxSampler(
        decoder, params, mesh, how, dtype="bfloat16", slots=sizes.slots, max_length=2 * sizes.drawn + 64
    )
    requests = [Request(prompt_ids=tuple(range(1, 33)), seed=i) for i in range(2 * sizes.slots)]
    first = sample(engine, requests)
    start = time.perf_counter()
    drawn = sample(engine, requests)
    taken = time.perf_counter() - start
    yield {
        "slots": sizes.slots, "tokens_per_s": sum(len(c.token_ids) for c in drawn) / taken,
        "same_tokens": [c.token_ids for c in first] == [c.token_ids for c in drawn],
    }  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [f"## {figures['card']}", "", f"JAX {figures['jax']}, `{figures['command']}`, {figures['seconds']:.0f} s."]
    for part, rows in figures["parts"].items():
        lines += ["", f"**{part}**" + (f": failed: {figures['failed'][part]}" if part in figures["failed"] else ""), ""]
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            lines += [" | ".join(("", *columns, "")).strip(), " | ".join(("", *["---"] * len(columns), "")).strip()]
            lines += [" | ".join(("", *(_shown(row.get(c)) for c in columns), "")).strip() for row in rows]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the command out on any machine")
    parser.add_argument("--parts", nargs="+", choices=("parity", "attention", "training", "sampler"))
    parser.add_argument("--folder", type=Path, default=Path(), help="where gpu.json and gpu.md go")
    args = parser.parse_args()
    sizes = SMALL if args.small else Sizes()
    start = time.perf_counter()
    figures: dict[str, Any] = {
        "card": jax.devices()[0].device_kind, "jax": jax.__version__,
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]), "parts": {}, "failed": {},
    }  # fmt: skip
    parts = {
        "parity": partial(parity, sizes), "attention": partial(attention_times, sizes),
        "training": partial(training, sizes, args.small), "sampler": partial(sampler, sizes, args.small),
    }  # fmt: skip
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.parts or parts:
        rows = figures["parts"][name] = []
        try:
            for row in parts[name]():
                rows.append(row)
                print(name, {key: _shown(value) for key, value in row.items()}, flush=True)
        except Exception as e:
            traceback.print_exc()
            figures["failed"][name] = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        figures["seconds"] = time.perf_counter() - start
        (args.folder / "gpu.json").write_text(json.dumps(figures, indent=1))
        (args.folder / "gpu.md").write_text(table(figures))
    sys.exit(1 if figures["failed"] else 0)


if __name__ == "__main__":
    main()
