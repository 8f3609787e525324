"""Which mesh and rematerialisation suit a pod? Many are weighed by a forecast, the best are compiled."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from o1p_jax.config.chips import GIB, Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices.axes import DATA_AXES, check_divides
from o1p_jax.models.config import DecoderConfig
from o1p_jax.planning.compile import PodPlan, model_config, plan, usable_memory
from o1p_jax.planning.estimate import formula_time, mean_length
from o1p_jax.planning.lengths import planned_lengths
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say, track
from o1p_jax.training.memory import device_bytes

_STEPS = 64
"""Number of steps whose lengths the formula sees."""
_REMATS: tuple[Literal["light", "full"], ...] = ("light", "full")


def sweep(cfg: RunConfig, topology: Topology, *, compiled: int = 6, **job: Any) -> list[PodPlan]:
    """Returns plans of the most promising variants, that with the most tokens a second first.

    `job` is what `plan` is told of the whole job. Raises `BadInput` if no variant fits.
    """
    chosen = candidates(cfg, topology, job.get("solution_tokens"))[:compiled]
    found = []
    with track("sweep", total=len(chosen), unit="plans") as bar:
        for candidate in chosen:
            try:
                found.append(plan(candidate.config, topology, **job))
            except BadInput as e:
                say(str(e))
            bar.advance()
    fitting = [p for p in found if p.memory.fits]
    if not fitting:
        raise BadInput(f"{cfg.model} on {topology}: no mesh of it fits; take more chips or shorter rows")
    return sorted(fitting, key=lambda p: p.estimate.forecast / p.tokens)


def table(plans: list[PodPlan]) -> list[str]:
    """Returns the sweep's plans as lines for people."""
    shown = [
        f"{'mesh':44}{'remat':8}{'filled':>8}{'peak GiB':>10}{'tokens/s/chip':>15}{'MFU':>6}{'at best':>9}"
        f"{'job hours':>11}{'dollars':>10}"
    ]
    for p in plans:
        mesh = ",".join(f"{axis}:{n}" for axis, n in p.mesh.items() if n > 1)
        rate = p.tokens / p.estimate.forecast / p.chips
        dollars = "-" if p.job.dollars is None else f"{p.job.dollars:,.0f}"
        shown.append(
            f"{mesh:44}{p.remat:8}{p.fill:>8.0%}{p.memory.peak / GIB:>10.1f}{rate:>15,.0f}"
            f"{p.estimate.mfu:>6.0%}{p.estimate.most_mfu:>9.0%}{p.job.hours:>11.2f}{dollars:>10}"
        )
    return shown


class Candidate(NamedTuple):
    """A variant of the run, and how fast it should be."""

    config: RunConfig
    seconds: float
    """A token's share of a step, by a forecast that needs no compiled program."""


def candidates(cfg: RunConfig, topology: Topology, solution_tokens: int | None = None) -> list[Candidate]:
    """Returns the variants whose memory should do, the fastest first; none where no mesh divides the model."""
    model, shuffled = model_config(cfg), np.random.default_rng(cfg.seed)
    lengths = planned_lengths(
        cfg, _STEPS * cfg.batch.sequences, solution_tokens or max(1, cfg.sampling.max_tokens // 2)
    )
    steps = shuffled.permutation(lengths)[: len(lengths) // cfg.batch.sequences * cfg.batch.sequences]
    lengths_NS = steps.reshape(-1, cfg.batch.sequences) if len(steps) else np.array(lengths)[None]
    found = [Candidate(c, _seconds(c, model, topology, lengths_NS)) for c in _variants(cfg, model, topology)]
    return sorted(found, key=lambda c: c.seconds)


def _variants(cfg: RunConfig, model: DecoderConfig, topology: Topology) -> Iterator[RunConfig]:
    """The variants of `cfg` that divide the model, and in whose memory a row of each device should fit."""
    experts = (1,) if model.experts is None else (1, 2, 4, 8, 16)
    for tensor, context, expert, remat in itertools.product((1, 2, 4, 8), (1, 2, 4, 8), experts, _REMATS):
        fsdp, rest = divmod(topology.devices, tensor * context * expert)
        if rest or fsdp < 1 or fsdp * expert > cfg.batch.sequences:
            continue  # more rows than a step has samples would stay empty
        variant = replace(
            cfg,
            mesh=f"fsdp:{fsdp},expert:{expert},context:{context},tensor:{tensor}",
            compute=replace(cfg.compute, remat=remat),
        )
        try:
            check_divides(variant.mesh, model.axis_sizes(), topology.devices)
        except BadInput:
            continue
        tokens = cfg.batch.row_length / context
        if device_bytes(model, variant.compute, parse_mesh(variant.mesh), tokens) < usable_memory(topology):
            yield variant


def _seconds(cfg: RunConfig, model: DecoderConfig, topology: Topology, lengths_NS: np.ndarray) -> float:
    """A token's share of a step in seconds, by formula, over N steps of S samples each.

    A step computes at least as many slots as its tokens, and as the rows that its longest sample asks for: all devices
    have one of that length.
    """
    shape = parse_mesh(cfg.mesh)
    rows = math.prod(shape[axis] for axis in DATA_AXES)
    tokens = lengths_NS.sum(axis=1)
    slots = float(np.maximum(tokens, rows * lengths_NS.max(axis=1)).mean())
    length = mean_length(lengths_NS.reshape(-1).tolist())
    found = formula_time(cfg.compute, model, topology, shape, slots=slots, span=length)
    return found.forecast / float(tokens.mean())
