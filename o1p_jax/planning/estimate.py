"""The time of a step: of a planned one, whose program is compiled, and by formula alone."""

import itertools
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from o1p_jax.config.chips import Topology
from o1p_jax.config.tree import ComputeConfig, RunConfig
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.experts import MOST_ROWS
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.hlo import Collective, OpenLoop
from o1p_jax.planning.roofline import (
    PACKED,
    RECOMPUTED,
    SPLASH,
    Kernel,
    Operations,
    computed_operations,
    mean_reach,
    memory_bytes,
    sent_bytes,
    step_flops,
)
from o1p_jax.planning.step_time import StepTime, step_time
from o1p_jax.training.packing import Steps


def planned_time(
    cfg: RunConfig, model: DecoderConfig, topology: Topology, mesh: Mapping[str, int], steps: Steps, *,
    sent: Iterable[Collective], device_state: float, loops: Iterable[OpenLoop],
) -> StepTime:  # fmt: skip
    """Returns the time of the run's mean step.

    `sent` is what a step sends, and `device_state` the bytes of a device's parameters and moments. `loops` are the open
    ones of the compiled microbatch, which is the largest.
    """
    count, compute = len(steps.packed), cfg.compute
    taken = [
        shape for packed in steps.packed for shape, of_shape in zip(steps.shapes, packed, strict=True) for _ in of_shape
    ]
    kernel = kernel_of(topology)
    rows = itertools.chain.from_iterable([shape.length] * shape.rows for shape in taken)
    whole = computed_operations(
        model, steps.slots, steps.lengths if kernel.by_text else rows, kernel, RECOMPUTED[compute.remat],
        compute.trainable_layers,
    )  # fmt: skip
    length = mean_length(steps.lengths)
    row_length = sum(shape.length for shape in taken) / len(taken)
    tokens, compiled = steps.tokens / count, max(steps.shapes, key=lambda shape: shape.slots)
    turns = {  # of a loop in the compiled microbatch, by the loops around it: microbatches, layers, tiles of queries
        2: _expert_turns(model, compiled.slots / topology.devices * mesh["tensor"], mesh["expert"]),
        3: mean_reach(model, steps.lengths, kernel),
    }
    launches = sum(loop.kernels * loop.entered * turns.get(loop.depth, 1) for loop in loops)
    return step_time(
        topology,
        mesh,
        operations=Operations(*(n / count for n in whole)),
        model_flops=step_flops(model, tokens, length, compute.trainable_layers),
        moved=memory_bytes(
            model, device_state, steps.slots / count / topology.devices * mesh["tensor"], len(taken) / count, mesh,
            compute,
        ),
        sent=sent,
        launches=launches * len(taken) / count * row_length / compiled.length,
        slowest=(uneven(steps) if kernel.by_text else 1.0)
        * slowest_part(length if kernel.by_text else row_length, row_length, mesh["context"]),
        float32=compute.dtype == "float32",
    )  # fmt: skip


def formula_time(
    compute: ComputeConfig, model: DecoderConfig, topology: Topology, mesh: Mapping[str, int], *, slots: float,
    span: int, microbatches: float = 1, recomputed: Collection[str] | None = None, kernel: Kernel | None = None,
    balanced: bool = False,
) -> StepTime:  # fmt: skip
    """Returns the time of a step of `slots` token slots in rows of one text of `span` tokens each, all of them filled.

    `recomputed` and `kernel` are the run's own where they are left out; `balanced` says that the parts of a split row
    have as much attention each, which the run's own have not.
    """
    tokens = slots / topology.devices * mesh["tensor"]
    state = 12 * model_sizes(model).total / (mesh["fsdp"] * mesh["expert"] * mesh["tensor"])
    again = RECOMPUTED[compute.remat] if recomputed is None else recomputed
    kernel = kernel or kernel_of(topology)
    whole = computed_operations(model, slots, [span], kernel, again, compute.trainable_layers)
    return step_time(
        topology,
        mesh,
        operations=whole._replace(attention=whole.attention * slots / span),
        model_flops=step_flops(model, slots, span, compute.trainable_layers),
        moved=memory_bytes(model, state, tokens, microbatches, mesh, compute),
        sent=sent_bytes(model, tokens, microbatches, mesh, compute),
        slowest=1.0 if balanced else slowest_part(span, span, mesh["context"]),
        float32=compute.dtype == "float32",
    )


def kernel_of(topology: Topology) -> Kernel:
    """Returns the run's attention on these chips."""
    return SPLASH if topology.chip.torus else PACKED


def _expert_turns(model: DecoderConfig, tokens: float, parts: int) -> float:
    """Turns of the loop over tiles of rows that go to a device's experts, which `parts` devices share out.

    The last tile of each expert is half empty on average.
    """
    if model.experts is None:
        return 1
    rows = tokens * parts * model.experts.per_token / model.experts.count  # an expert's
    return model.experts.count / parts * (rows / min(rows, MOST_ROWS) + 0.5)


def mean_length(lengths: list[int]) -> int:
    """Returns the length of texts that have as much attention a token as texts of these lengths."""
    return round(sum(n * n for n in lengths) / sum(lengths))


def uneven(steps: Steps) -> float:
    """Returns the attention of the devices that have the most in each microbatch, as a multiple of the devices' mean.

    Attention goes by the texts' squared lengths.
    """
    mean = most = 0.0
    for rows in (rows for step in steps.packed for of_shape in step for rows in of_shape):
        work = np.array([sum(steps.lengths[i] ** 2 for i in row) for row in rows], float)
        by_device = work.reshape(steps.packer.devices, -1).sum(axis=1)
        mean, most = mean + by_device.mean(), most + by_device.max()
    return float(most / mean)


def slowest_part(span: float, row_length: float, parts: int) -> float:
    """Returns the attention of the last of the `parts` that rows are split into, as a multiple of the parts' mean.

    Its tokens see the most, all that lies before them in spans of this length: with a span a row, 2 - 1 / parts.
    """
    own = row_length / parts
    return 1 + (1 - 1 / parts) * max(0.0, span - own) / max(row_length - own, 1)
