"""How long a step takes: at best, and by a forecast.

At best, arithmetic, memory and links run at their peaks and all at the same time. The forecast adds up what waits for
each other, at the shares of the peaks that the chip is known to reach (config/chips.py, docs/pods.md). It knows nothing
of stragglers, of hosts that read data, or of writing checkpoints.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from o1p_jax.config.chips import Topology
from o1p_jax.planning.hlo import Collective
from o1p_jax.planning.roofline import Operations

_SHOWN = 1 / 3
"""Share of the links' time that does not hide behind arithmetic: a guess that the rows of docs/pods.md bear out."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of one training step."""

    seconds: dict[str, float]
    """Seconds that compute, memory and the links of each axis would take alone, at their peaks."""
    parts: dict[str, float]
    """Seconds that the forecast adds up."""
    model_flops: float
    """Operations of the step, without those that are computed again."""
    peak_flops: float
    """Operations of all chips, a second."""

    @property
    def least(self) -> float:
        """Seconds of the step at best, with everything at the same time."""
        return max(self.seconds.values())

    @property
    def bound(self) -> str:
        """What takes the longest at best."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def forecast(self) -> float:
        """Seconds that the step should take."""
        return max(sum(self.parts.values()), self.least)

    @property
    def most_mfu(self) -> float:
        """Model FLOPs utilisation at best (arXiv 2204.02311, appendix B): what is computed again does not count."""
        return self.model_flops / (self.least * self.peak_flops)

    @property
    def mfu(self) -> float:
        """The utilisation by the forecast."""
        return self.model_flops / (self.forecast * self.peak_flops)


def step_time(
    topology: Topology, mesh: Mapping[str, int], *, operations: Operations, model_flops: float, moved: float,
    sent: Iterable[Collective], launches: float = 0.0, slowest: float = 1.0, float32: bool = False,
) -> StepTime:  # fmt: skip
    """Returns the time of a step that computes `operations` on all devices together.

    A device moves `moved` bytes to and from its memory, and begins `launches` short kernels one after the other, mostly
    attention's: what these take longer than attention itself shows. The device that has the most attention has
    `slowest` times the mean of it. `float32` says that products are float32.
    """
    chip = topology.chip
    rate = topology.chips * chip.flops * (chip.float32_share if float32 else 1)
    memory = moved / (chip.memory_bandwidth / chip.devices)
    attention = slowest * operations.attention / (rate * chip.attention_share)
    links = link_seconds(topology, sent, mesh)
    return StepTime(
        seconds={"compute": sum(operations) / rate, "memory": memory}
        | {f"links {axis}": s for axis, s in links.items()},
        parts={
            "products": operations.products / (rate * chip.product_share),
            "attention": attention,
            "memory": memory,
            "links": _SHOWN * sum(links.values()),
            "launches": max(0.0, launches * chip.launch - attention),
        },
        model_flops=model_flops,
        peak_flops=topology.chips * chip.flops,
    )


def link_seconds(topology: Topology, sent: Iterable[Collective], mesh: Mapping[str, int]) -> dict[str, float]:
    """Returns the seconds a step that the links along each axis (or axes together) are busy, at their peak."""
    seconds: dict[str, float] = {}
    for collective in sent:
        rate = _rate(topology, collective.axis, mesh)
        seconds[collective.axis] = seconds.get(collective.axis, 0.0) + collective.bytes / rate
    return seconds


def _rate(topology: Topology, axis: str, mesh: Mapping[str, int]) -> float:
    """Bytes a second that a device receives along an axis.

    On a torus an axis of n devices takes as many dimensions as it needs to hold them, each with two links (directions);
    an axis of a single dimension that does not close into a ring still fills both directions. Between GPUs the links
    are NVLink within a host, and for what crosses hosts the hosts' network adapters, all of a host's together.
    """
    chip, names = topology.chip, axis.split("+")
    n = math.prod(mesh[name] for name in names)
    if chip.torus:
        dimensions, held = 0, chip.devices
        for size in sorted(topology.shape, reverse=True):
            if held < n and size > 1:
                dimensions, held = dimensions + 1, held * size
        return 2 * chip.link_bandwidth * max(dimensions, 1) / chip.devices
    index = tuple(slice(None) if name in names else 0 for name in mesh)
    group = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))[index].reshape(-1)
    hosts = len(set((group // topology.shape[1]).tolist()))
    if hosts == 1:
        return chip.link_bandwidth
    return min(chip.link_bandwidth, chip.network_bandwidth * n / hosts * hosts / (hosts - 1))
