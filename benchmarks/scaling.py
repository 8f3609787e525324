"""Does a step compile in the same time whatever the number of layers, and run in time linear in the tokens of a row?

    python benchmarks/scaling.py --repeats=3
    python benchmarks/scaling.py --repeats=3 --topology=h100:1x8       # the compile times, by a pod's compiler

The decoder is small and random, in float32, on one device; of a pod in bfloat16, on all. In rows of packed samples each
token sees as many as in the shortest row, in rows of one sample attention is quadratic. Each repeat measures all in
turn; medians are printed.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from o1p_jax.config.chips import Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import ComputeConfig, RunConfig
from o1p_jax.devices.mesh import make_mesh, mesh_of
from o1p_jax.models.decoder import init_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.planning.compile import abstract_state, devices_of
from o1p_jax.runtime.entry import main
from o1p_jax.stages import cli
from o1p_jax.training.packing import Batch
from o1p_jax.training.step import batch_sharding, make_train_step, put_batch, state_shardings, train_state

Figures = tuple[float, float]
"""CPU-seconds, and seconds by the clock."""
SHORTEST = 2048
SAMPLE = 512
"""Tokens of a packed sample."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    repeats: int = 3
    layers: tuple[int, ...] = (8, 16, 32, 64)
    lengths: tuple[int, ...] = (2048, 4096, 8192, 16384)
    topology: str | None = None
    """The pod whose compiler is timed, such as h100:1x8; left out: this machine's, and the step is run as well."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", "cpu")
    topology = args.topology and Topology.parse(args.topology)
    mesh: Any = make_mesh("1x1")
    if topology:
        mesh = mesh_of(devices_of(topology), tuple(parse_mesh("fsdp:-1", topology.devices).values()))
    found = in_turn(args.repeats, args.layers, lambda layers: lambda: compiled(layers, mesh))
    table("compile, layers", found, [1] * len(found))
    if topology:
        return
    for name, sample in (("packed samples, tokens a row", SAMPLE), ("one sample, tokens a row", None)):
        found = in_turn(args.repeats, args.lengths, lambda length, sample=sample: step_of(length, sample or length))
        table(name, found, args.lengths)


def in_turn(repeats: int, sizes: Iterable[int], make: Callable[[int], Callable[[], None]]) -> dict[int, Figures]:
    """Returns the medians of what `make(size)` returns, each called once more before."""
    work = {size: make(size) for size in sizes}
    taken: dict[int, list[Figures]] = {size: [] for size in work}
    for repeat in range(repeats + 1):
        for size, do in work.items():
            cpu, clock = time.process_time(), time.perf_counter()
            do()
            if repeat:
                taken[size].append((time.process_time() - cpu, time.perf_counter() - clock))
    return {size: tuple(map(statistics.median, zip(*figures, strict=True))) for size, figures in taken.items()}


def table(name: str, found: dict[int, Figures], per: Iterable[int]) -> None:
    """Prints the figures, and their ratio to the first ones for as much of `per`."""
    print(f"| {name} | CPU-s | clock, s | ratio of CPU-s | of the clock |\n| ---: | ---: | ---: | ---: | ---: |")
    scaled = {size: [f / p for f in figures] for (size, figures), p in zip(found.items(), per, strict=True)}
    first = next(iter(scaled.values()))
    for size, figures in found.items():
        ratios = [ours / theirs for ours, theirs in zip(scaled[size], first, strict=True)]
        print(f"| {size:,} | {figures[0]:.2f} | {figures[1]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    sys.stdout.flush()


def model_of(layers: int) -> Any:
    return read_config(
        {"model_type": "qwen3", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "head_dim": 64,
         "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2}
    )  # fmt: skip


def batch_of(rows: int, length: int, sample: int) -> Batch:
    """Two microbatches, of which the second is empty, as those of a run may be (`training/packing.py`)."""
    rng, count = np.random.default_rng(0), length // sample

    def both(array: np.ndarray) -> np.ndarray:
        filled = np.broadcast_to(array, (rows, *array.shape))
        return np.stack([filled, np.zeros_like(filled)])

    numbers = np.arange(length, dtype=np.int32)
    ids = rng.integers(1, 4096, length, np.int32)
    return Batch(
        ids_RL=both(ids), segments_RL=both(numbers // sample + 1), positions_RL=both(numbers % sample),
        targets_RL=both(np.roll(ids, -1)), mask_RL=both(numbers % sample < sample - 1),
        ref_logprobs_RL=both(np.full(length, -8.3, np.float32)), weights_RM=both(np.ones(count, np.float32)),
        present_RM=both(np.ones(count, bool)),
    )  # fmt: skip


def compiled(layers: int, mesh: Any) -> None:
    """Traces and compiles the step of rows of the shortest length."""
    cfg, model = config("float32" if mesh.size == 1 else "bfloat16"), model_of(layers)
    state, frozen, shardings = abstract_state(cfg, model, None, mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)),
        batch_of(mesh.size, SHORTEST, SAMPLE),
    )
    step: Any = make_train_step(model, None, cfg.training, 1000, mesh, shardings)
    step.lower(state, frozen, (batch,)).compile()


def step_of(length: int, sample: int) -> Callable[[], None]:
    """Returns a step of one row."""
    cfg, model, mesh = config("float32"), model_of(4), make_mesh("1x1")
    params = init_params(model, jax.random.key(0), mesh)
    shardings = state_shardings(param_shardings(model, mesh), params, cfg.optim, mesh)
    state = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=shardings, donate_argnums=0)(params)
    batch, none = put_batch(batch_of(1, length, sample), mesh, 1), type(params)({})
    step = make_train_step(model, None, cfg.training, 1000, mesh, shardings)

    def work() -> None:
        nonlocal state
        state, metrics = step(state, none, (batch,))
        assert float(metrics["tokens"]) == length, metrics["tokens"]

    return work


def config(dtype: Any) -> RunConfig:
    return RunConfig(compute=ComputeConfig(dtype=dtype))


if __name__ == "__main__":
    main(command)
