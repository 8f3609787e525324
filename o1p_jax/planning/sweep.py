"""Which mesh, rematerialisation and number of rows suit a pod? Many are weighed by formula, the best are compiled."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from o1p_jax.config.chips import GIB, Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices.axes import check_divides
from o1p_jax.models.config import DecoderConfig
from o1p_jax.planning.compile import PodPlan, model_config, plan
from o1p_jax.planning.hlo import Collective
from o1p_jax.planning.roofline import computed_flops, device_bytes, model_sizes
from o1p_jax.planning.step_time import link_seconds
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say, track
from o1p_jax.stages.preflight import mesh_sizes

_REMATS: tuple[Literal["light", "full"], ...] = ("light", "full")


def sweep(cfg: RunConfig, topology: Topology, *, compiled: int = 6, **job: Any) -> list[PodPlan]:
    """Returns plans of the most promising variants, that with the most tokens a second first.

    `job` is what `plan` is told of the whole job. Raises `BadInput` if no variant fits.
    """
    chosen = candidates(cfg, topology)[:compiled]
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
    return sorted(fitting, key=lambda p: p.estimate.step / p.tokens)


def table(plans: list[PodPlan]) -> list[str]:
    """Returns the sweep's plans as lines for people."""
    shown = [
        f"{'mesh':44}{'remat':8}{'rows':>6}{'peak GiB':>10}{'tokens/s/chip':>15}{'MFU':>6}{'without overlap':>17}"
        f"{'job hours':>11}{'dollars':>10}"
    ]
    for p in plans:
        mesh = ",".join(f"{axis}:{n}" for axis, n in p.mesh.items() if n > 1)
        rate = p.tokens / p.estimate.step / p.chips
        dollars = "-" if p.job.dollars is None else f"{p.job.dollars:,.0f}"
        shown.append(
            f"{mesh:44}{p.remat:8}{p.rows // p.microbatches:>6}{p.memory.peak / GIB:>10.1f}{rate:>15,.0f}"
            f"{p.estimate.mfu:>6.0%}{p.estimate.mfu_without_overlap:>17.0%}{p.job.hours:>11.2f}{dollars:>10}"
        )
    return shown


class Candidate(NamedTuple):
    """A variant of the run, and how fast it should be."""

    config: RunConfig
    seconds: float
    """A token's share of a step, by formula: arithmetic, and a third of the links' time that may not hide behind it."""


def candidates(cfg: RunConfig, topology: Topology) -> list[Candidate]:
    """Returns the variants whose memory should do, the fastest first; none where no mesh divides the model."""
    model = model_config(cfg)
    found = [Candidate(c, _seconds(c, model, topology)) for c in _variants(cfg, model, topology)]
    return sorted(found, key=lambda c: c.seconds)


def _variants(cfg: RunConfig, model: DecoderConfig, topology: Topology) -> Iterator[RunConfig]:
    """The variants of `cfg` that divide the model and should fit the pod's memory."""
    experts = (1,) if model.experts is None else (1, 2, 4, 8, 16)
    usable = topology.chip.memory * topology.chip.usable / topology.chip.devices
    for tensor, context, expert, remat, rows in itertools.product(
        (1, 2, 4, 8), (1, 2, 4, 8), experts, _REMATS, (1, 2, 4)
    ):
        fsdp, rest = divmod(topology.devices, tensor * context * expert)
        if rest or fsdp < 1 or fsdp * expert * rows > cfg.batch.sequences:
            continue  # more rows than a step has samples would stay empty
        variant = replace(
            cfg,
            mesh=f"fsdp:{fsdp},expert:{expert},context:{context},tensor:{tensor}",
            batch=replace(cfg.batch, rows_per_microbatch=fsdp * expert * rows),
            compute=replace(cfg.compute, remat=remat),
        )
        try:
            check_divides(variant.mesh, mesh_sizes(variant, model), topology.devices)
        except BadInput:
            continue
        if device_bytes(variant, model, parse_mesh(variant.mesh)) < usable:
            yield variant


def _seconds(cfg: RunConfig, model: DecoderConfig, topology: Topology) -> float:
    """A token's share of a step in seconds, by formula."""
    shape, tokens = parse_mesh(cfg.mesh), cfg.batch.rows_per_microbatch * cfg.batch.row_length
    own = tokens / topology.devices * shape["tensor"]
    passes = 3 if cfg.compute.remat == "light" else 4  # gathers before each pass and one scatter of gradients
    cached = 2 * model.kv_heads * model.head_dim / shape["tensor"]
    sent = {
        "fsdp": passes * 2 * model_sizes(model).total / shape["tensor"],
        "tensor": passes * 4 * model.layers * own * model.hidden_size * 2,
        "context": passes * model.layers * own * shape["context"] * cached * 2,
        "expert": passes * 2 * model.layers * own * shape["expert"] * model.hidden_size * 2,
    }
    moved = [Collective("all-gather", axis, 1, round(n)) for axis, n in sent.items() if shape[axis] > 1]
    links = sum(link_seconds(topology, moved, shape).values())
    arithmetic = computed_flops(model, tokens, cfg.batch.row_length, cfg.compute)
    return (arithmetic / (topology.chips * topology.chip.flops) + links / 3) / tokens
