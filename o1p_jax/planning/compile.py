"""Does a run fit a pod that is not here? The real training step is compiled for the pod's chips on this machine.

JAX compiles for a description of a pod: for TPUs through libtpu, for GPUs through the CUDA plugin. A TPU program that
does not fit its chip's memory does not compile; a GPU's program does, so that its peak is compared with the card as
well.
"""

import dataclasses
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from o1p_jax.config.chips import GIB, Topology
from o1p_jax.config.mesh import mesh_text, parse_mesh
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices.axes import DATA_AXES, check_divides
from o1p_jax.devices.mesh import mesh_of
from o1p_jax.models.attention.packed import Served
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import abstract_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.estimate import planned_time
from o1p_jax.planning.hlo import Collective, collectives, open_loops
from o1p_jax.planning.job_cost import JobCost, job_cost
from o1p_jax.planning.lengths import planned_lengths
from o1p_jax.planning.step_time import StepTime
from o1p_jax.runtime.determinism import fix_bits
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say
from o1p_jax.training.memory import token_bytes, tokens_that_fit
from o1p_jax.training.packing import Batch, Steps, check_fits, make_steps
from o1p_jax.training.samples import unit_lengths
from o1p_jax.training.shapes import Room, Shape
from o1p_jax.training.step import (
    TrainState,
    attention_of,
    batch_sharding,
    make_train_step,
    state_shardings,
    train_state,
)
from o1p_jax.training.trainable import layer_splits, split_frozen

_KNOWN = Path(__file__).parent / "hub.json"
"""The config.json of models that are known without their files."""
_H100 = Path(__file__).parent / "h100.txtpb"
"""XLA's description of the GPU."""
_SAMPLES = 10_000
"""The most samples that a plan packs."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory of a device that a step takes, in bytes."""

    parameters: int
    moments: int
    arguments: int
    """All that lies there between steps: parameters, moments, frozen weights, the batch."""
    temporaries: int
    """What the compiler sets aside for a step; activations are part of it."""
    activations: int
    """What the forward pass keeps for the backward pass, by formula."""
    peak: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether the step's peak stays within the memory that is available."""
        return self.peak <= self.available


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """What a run would take on a pod: the result of `plan`."""

    model: str
    topology: str
    chips: int
    mesh: dict[str, int]
    parameters: int
    tokens: int
    """Tokens of a step, on average."""
    fill: float
    """Share of a step's computed token slots that hold a token."""
    shapes: tuple[Shape, ...]
    """The shapes of the microbatches."""
    microbatches: float
    """Microbatches of a step, on average."""
    remat: str
    attention: str
    """What serves attention."""
    compile_seconds: float
    memory: Memory
    collectives: tuple[Collective, ...]
    estimate: StepTime
    job: JobCost

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan's figures for JSON."""
        derived = {"fits": self.memory.fits, "bound": self.estimate.bound, "least_seconds": self.estimate.least}
        derived |= {"seconds": self.estimate.forecast, "most_mfu": self.estimate.most_mfu, "mfu": self.estimate.mfu}
        sent = [c._asdict() for c in self.collectives]
        return dataclasses.asdict(self) | {"collectives": sent} | derived


def plan(
    cfg: RunConfig, topology: Topology, *, problems: int = 5000, solution_tokens: int | None = None,
    price: float | None = None,
) -> PodPlan:  # fmt: skip
    """Compiles the step of `cfg` for the pod, and estimates the cost of the job on `problems` problems.

    Solutions are as long as those in the pool of `cfg`, or on average `solution_tokens` (left out: half of
    sampling.max_tokens), see `planned_lengths`; the largest of the shapes that follow is compiled. `price` is a chip's
    hour in dollars (left out: the list price in config/chips.py). Raises `BadInput` for a mesh that does not suit model
    or pod, and for a program that does not fit.
    """
    jax.config.update("jax_platforms", "cpu")  # libtpu is here to compile, not to find chips
    if cfg.compute.deterministic:
        fix_bits()
    model, shape = model_config(cfg), parse_mesh(cfg.mesh, topology.devices)
    if math.prod(shape.values()) != topology.devices:
        raise BadInput(
            f"mesh={cfg.mesh}: has {math.prod(shape.values())} devices, {topology} has {topology.devices}; "
            "give --mesh=fsdp:-1 or another that fits"
        )
    check_divides(cfg.mesh, model.axis_sizes(), topology.devices)
    mesh = mesh_of(devices_of(topology), tuple(shape.values()))
    splits = layer_splits(model.layers, cfg.compute.trainable_layers)
    solution_tokens = solution_tokens or max(1, cfg.sampling.max_tokens // 2)
    steps = planned_steps(cfg, model, topology, shape, min(_SAMPLES, problems * cfg.method.m), solution_tokens)
    state, frozen, shardings = abstract_state(cfg, model, splits, mesh)
    step: Any = make_train_step(model, splits, cfg.training, 1000, mesh, shardings)
    say(f"compile {cfg.model} for {topology}, mesh {mesh_text(shape)}, {steps.text}")
    start = time.perf_counter()
    try:
        compiled = step.lower(state, frozen, (abstract_batch(steps, mesh),)).compile()
    except Exception as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        found = re.search(r"Used (\S+) of (\S+) hbm", str(e))
        used = f"needs {found[1]} of {found[2]} a chip" if found else "exceeds the chip's memory"
        raise BadInput(
            f"{cfg.model} on {topology}, mesh {mesh_text(shape)}: does not fit: {used}; take more chips, "
            "--compute.remat=full, a smaller --batch.tokens_per_device, or a tensor or context axis"
        ) from None
    seconds = time.perf_counter() - start

    attention = largest_attention(cfg, model, mesh, steps)
    memory = _memory(compiled.memory_analysis(), cfg, model, topology, shape, state, steps, attention.workspace)
    text = compiled.as_text()
    sent = collectives(text, shape)
    count = len(steps.packed)
    microbatches = sum(len(of_shape) for packed in steps.packed for of_shape in packed) / count
    # Of one microbatch, the largest: what goes along "tensor" and "context" is less for the others.
    for_all = [c._replace(times=round(c.times * microbatches), bytes=round(c.bytes * microbatches)) for c in sent]
    estimate = planned_time(
        cfg, model, topology, shape, steps, sent=for_all, device_state=memory.parameters + memory.moments,
        loops=open_loops(text),
    )  # fmt: skip
    return PodPlan(
        model=cfg.model, topology=str(topology), chips=topology.chips, mesh=shape, parameters=model_sizes(model).total,
        tokens=round(steps.tokens / count), fill=steps.fill, shapes=steps.shapes, microbatches=microbatches,
        remat=cfg.compute.remat, attention=attention.by, compile_seconds=seconds, memory=memory,
        collectives=tuple(for_all), estimate=estimate,
        job=job_cost(
            cfg, model, topology, estimate, problems, solution_tokens, topology.chip.price if price is None else price
        ),
    )  # fmt: skip


def planned_steps(
    cfg: RunConfig, model: DecoderConfig, topology: Topology, shape: Mapping[str, int], count: int,
    solution_tokens: int,
) -> Steps:  # fmt: skip
    """Returns the steps that the run would make on the pod with the mesh `shape` and `count` samples."""
    lengths, tokens = planned_lengths(cfg, count, solution_tokens), cfg.batch.tokens_per_device
    if tokens is None:
        fitting = tokens_that_fit(model, cfg.compute, shape, usable_memory(topology))
        tokens = max(fitting, -(-cfg.method.UNIT * max(lengths) // shape["context"]))
    room = Room(
        devices=math.prod(shape[axis] for axis in DATA_AXES),
        parts=shape["context"],
        tokens=tokens,
        row_length=cfg.batch.row_length,
    )
    units = list(zip(*[iter(range(len(lengths)))] * cfg.method.UNIT, strict=False))
    if cfg.batch.too_long == "drop":
        units = [unit for unit in units if sum(lengths[i] for i in unit) <= room.row_length]
    check_fits(unit_lengths(lengths, units), room)
    return make_steps(lengths, cfg.batch, 1, cfg.seed, room, units)


def usable_memory(topology: Topology) -> float:
    """Returns the bytes of a device that JAX takes."""
    return topology.chip.memory * topology.chip.usable / topology.chip.devices


def lines(found: PodPlan) -> list[str]:
    """Returns the plan as lines for people."""
    memory, estimate = found.memory, found.estimate

    def gib(n: float) -> str:
        return f"{n / GIB:.2f}"

    verdict = "fits" if memory.fits else "DOES NOT FIT"
    shown = [
        f"{found.model} ({found.parameters / 1e9:.2f} B parameters) on {found.topology} ({found.chips} chips), mesh "
        f"{mesh_text(found.mesh)}, compiled in {found.compile_seconds:.0f} s",
        f"GiB a device: parameters {gib(memory.parameters)}, moments {gib(memory.moments)}, all arguments "
        f"{gib(memory.arguments)}, temporaries {gib(memory.temporaries)} (activations about {gib(memory.activations)})",
        f"peak {gib(memory.peak)} of {gib(memory.available)} GiB a device: {verdict}",
        f"a step: {found.tokens:,} tokens in {found.microbatches:.1f} microbatches of "
        f"{', '.join(f'{s.rows} x {s.length:,}' for s in found.shapes)} slots, {found.fill:.0%} filled, "
        f"{estimate.model_flops:.3g} model FLOPs; attention by {found.attention}",
    ]
    for c in found.collectives:
        shown.append(f"  {c.kind} along {c.axis}: {c.times:,} a step, {gib(c.bytes)} GiB received a device")
    alone, parts = (
        ", ".join(f"{name} {n:.3f}" for name, n in seconds.items() if n)
        for seconds in (estimate.seconds, estimate.parts)
    )
    shown.append(f"at best {estimate.least:.3f} s a step, bound by {estimate.bound} (seconds alone: {alone})")
    shown.append(
        f"forecast {estimate.forecast:.3f} s a step ({parts}); MFU {estimate.mfu:.0%} by the forecast, at best "
        f"{estimate.most_mfu:.0%}"
    )
    job = found.job
    cost = "" if job.dollars is None else f", {job.dollars:,.0f} dollars"
    of = f", the first of up to {job.rounds} rounds" if job.rounds > 1 else ""
    shown.append(
        f"the job{of}: {job.problems:,} problems, solutions of {job.solution_tokens:,} tokens: sampling at best "
        f"{job.sampling / 3600:.2f} h ({job.replica_chips} chips a replica, {job.batch} rows each), by the forecast "
        f"reference {job.reference / 3600:.2f} h and training {job.training / 3600:.2f} h ({job.steps} steps); "
        f"together {job.hours:.2f} h{cost}"
    )
    return shown


def model_config(cfg: RunConfig) -> DecoderConfig:
    """Returns the decoder's configuration of the run's model.

    A model of hub.json is known without its files; of any other model config.json is read, or fetched from the hub.
    """
    known = json.loads(_KNOWN.read_text())
    if cfg.model in known:
        return read_config(known[cfg.model])
    return load_config(resolve_model(cfg.model, cfg.revision, weights=False))


def devices_of(topology: Topology) -> list[Any]:
    """Returns the pod's devices, as JAX describes them.

    Raises `BadInput` where the compiler for these devices is not installed.
    """
    shape = "x".join(map(str, topology.shape))
    os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-256")  # else libtpu looks for hardware
    try:
        if topology.chip.torus:
            name = f"{'tpu' if topology.kind == '7x' else ''}{topology.kind}:{shape}"
            return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        return topologies.get_topology_desc(
            platform="cuda", target_config=_H100.read_text(), topology=f"1x{shape}"
        ).devices
    except Exception as e:  # the plugins raise errors of several kinds
        missing = "not installed" if "library" in str(e) or "found" in str(e) else f"{type(e).__name__}: {e}"
        raise BadInput(
            f"topology={topology}: no compiler for it ({missing}); pip install -e '.[plan]', or name another shape"
        ) from e


def abstract_state(cfg: RunConfig, model: DecoderConfig, splits: Any, mesh: Any) -> tuple[TrainState, Any, TrainState]:
    """Returns shapes and shardings: (training state, frozen parameters), and the state's shardings."""

    def placed(shapes: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings)

    params, frozen = split_frozen(abstract_params(model, splits), splits)
    trained, kept = split_frozen(param_shardings(model, mesh, splits), splits)
    shardings = state_shardings(trained, params, cfg.optim, mesh)
    state = placed(jax.eval_shape(lambda p: train_state(p, cfg.optim), params), shardings)
    low = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.dtype(cfg.compute.dtype)), frozen)
    return state, placed(low, kept), shardings


def abstract_batch(steps: Steps, mesh: Any) -> Batch:
    """Returns the shapes and shardings of a step's microbatches of the shape with the most slots."""
    s = max(range(len(steps.shapes)), key=lambda s: steps.shapes[s].slots)
    shape, count, segments = steps.shapes[s], steps.microbatches[s], steps.segments[s]

    def array(width: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, shape.rows, width), dtype, sharding=batch_sharding(mesh))

    tokens = array(shape.length, jnp.int32)
    return Batch(
        ids_RL=tokens, segments_RL=tokens, positions_RL=tokens, targets_RL=tokens,
        mask_RL=array(shape.length, jnp.bool_), ref_logprobs_RL=array(shape.length, jnp.float32),
        weights_RM=array(segments, jnp.float32), present_RM=array(segments, jnp.bool_),
    )  # fmt: skip


def largest_attention(cfg: RunConfig, model: DecoderConfig, mesh: Any, steps: Steps) -> Served:
    """Returns what serves attention in microbatches of the shape with the most slots."""
    shape, segments = max(zip(steps.shapes, steps.segments, strict=True), key=lambda x: x[0].slots)
    return attention_of(model, cfg.compute, mesh, shape, segments)


def _memory(
    stats: Any, cfg: RunConfig, model: DecoderConfig, topology: Topology, shape: dict[str, int], state: TrainState,
    steps: Steps, workspace: int,
) -> Memory:  # fmt: skip
    """The memory of a device, from the compiler's figures and the state's shapes; and what attention takes besides."""

    def bytes_of(tree: Any) -> int:
        leaves = jax.tree.leaves(tree)
        return sum(math.prod(a.sharding.shard_shape(a.shape)) * np.dtype(a.dtype).itemsize for a in leaves)

    most = max(s.slots for s in steps.shapes)
    return Memory(
        parameters=bytes_of(state.params),
        moments=bytes_of(state.opt_state),
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        activations=round(token_bytes(model, cfg.compute, shape) * most / topology.devices * shape["tensor"]),
        peak=stats.peak_memory_in_bytes + workspace,
        available=round(usable_memory(topology)),
    )
