"""How long a step takes at best: arithmetic, memory and links at their peaks, all at the same time.

The time is a bound from below, not a forecast: nothing here knows of launches, stragglers or kernels that reach a part
of the peak.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from o1p_jax.config.chips import Topology
from o1p_jax.planning.hlo import Collective


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of one training step, at best."""

    seconds: dict[str, float]
    """Seconds that compute, memory and the links of each axis would take alone."""
    model_flops: float
    """Operations of the step, without those that are computed again."""
    peak_flops: float
    """Operations of all chips, a second."""

    @property
    def step(self) -> float:
        """Seconds of the step, with everything at the same time."""
        return max(self.seconds.values())

    @property
    def bound(self) -> str:
        """What takes the longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation (arXiv 2204.02311, appendix B): what is computed again does not count."""
        return self.model_flops / (self.step * self.peak_flops)

    @property
    def mfu_without_overlap(self) -> float:
        """The utilisation if arithmetic waited for memory and every link."""
        return self.model_flops / (sum(self.seconds.values()) * self.peak_flops)


def link_seconds(topology: Topology, sent: Iterable[Collective], mesh: dict[str, int]) -> dict[str, float]:
    """Returns the seconds a step that the links along each axis (or axes together) are busy, at their peak."""
    seconds: dict[str, float] = {}
    for collective in sent:
        rate = _rate(topology, collective.axis, mesh)
        seconds[collective.axis] = seconds.get(collective.axis, 0.0) + collective.bytes / rate
    return seconds


def _rate(topology: Topology, axis: str, mesh: dict[str, int]) -> float:
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
