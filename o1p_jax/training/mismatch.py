"""How far the sampler's log-probabilities of tokens are from the trainer's, where both computed the same model.

The loss takes the trainer's for both sides of its ratio, so that a mismatch does not bend the ratio itself; but the
samples are then drawn from another distribution than the one that is trained (arXiv 2507.18071 and others tell of it).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

MUCH = 0.1
"""Mean absolute difference in nats from which on something other than rounding must be suspected.

Two float32 programs differ by about 1e-6; vLLM in bfloat16 on a CPU and a float32 trainer by 0.04.
"""

_PREFIX = "mismatch_"


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """Differences are the trainer's log-probability of a token less the sampler's, in nats, at temperature 1."""

    samples: int
    tokens: int
    mean: float
    """The mean absolute difference."""
    median: float
    """Like the next two, of the absolute differences."""
    p99: float
    largest: float
    tenth: float
    """The share of the tokens whose two probabilities differ by more than a tenth of the sampler's."""
    kl: float
    """An estimate of the Kullback-Leibler divergence of the trainer's distribution from the sampler's, in nats.

    It is the mean of exp(d) - 1 - d over the tokens' differences d (Schulman, "Approximating KL divergence", 2020), and
    unbiased where the tokens were drawn at temperature 1 without top-p and top-k.
    """

    @property
    def warns(self) -> bool:
        """Whether the difference is larger than rounding explains."""
        return not self.mean <= MUCH  # NaN warns too

    def for_metrics(self) -> dict[str, float]:
        """Returns the figures that stand beside each step's metrics, by name."""
        return {_PREFIX + name: float(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metrics(cls, line: Mapping[str, float | None]) -> "Mismatch | None":
        """Returns the figures that stand in a line of metrics, where null is not a number; None if there are none."""
        names = [f.name for f in fields(cls)]
        if any(_PREFIX + name not in line for name in names):
            return None
        values: dict[str, Any] = {name: line[_PREFIX + name] for name in names}
        return cls(**values | {name: math.nan for name in names if values[name] is None})

    def text(self) -> str:
        """Returns the figures for people, to follow upon "sampler and trainer differ by"."""
        return (
            f"{self.mean:.2g} nats in the log-probability of a token, the mean of {self.tokens:,.0f} tokens (99% by "
            f"at most {self.p99:.2g}, all by {self.largest:.2g}); {self.tenth:.2%} have a probability more than a "
            "tenth off"
        )

    def line(self) -> str:
        """Returns a line for people, with a warning where one is due."""
        said = f"sampler and trainer differ by {self.text()}"
        if not self.warns:
            return said
        return (
            f"warning: {said}: a mean above {MUCH} is more than rounding makes; the sampler may have had other "
            "weights, another dtype or another attention (docs/mismatch.md)"
        )


def mismatch(sampler: Mapping[int, np.ndarray], trainer: Mapping[int, np.ndarray]) -> Mismatch | None:
    """Compares log-probabilities (nats) of the same tokens by sample; None where no sample has both."""
    both = sorted(sampler.keys() & trainer.keys())
    if not both:
        return None
    difference_N = np.concatenate([trainer[i].astype(np.float64) - sampler[i] for i in both])
    if not difference_N.size:
        return None
    size_N = np.abs(difference_N)
    median, p99, largest = np.quantile(size_N, [0.5, 0.99, 1.0])
    ratio_N = np.exp(np.minimum(difference_N, 700.0))
    return Mismatch(
        samples=len(both),
        tokens=size_N.size,
        mean=float(size_N.mean()),
        median=float(median),
        p99=float(p99),
        largest=float(largest),
        tenth=float((~(np.abs(ratio_N - 1) <= 0.1)).mean()),
        kl=float((ratio_N - 1 - difference_N).mean()),
    )
