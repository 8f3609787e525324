"""What a job takes on a pod: sampling, reference log-probabilities and training, in hours and dollars.

Of several rounds it is the first one's: the later ones' solutions are shorter, by how much is not known before.

Training and reference go by the forecast of step_time.py. Sampling has a decoder's bound from below: every token reads
the weights once for the whole batch, and each row's keys and values once.
"""

import math
from dataclasses import dataclass

from o1p_jax.config.chips import Topology
from o1p_jax.config.tree import RunConfig
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.sizes import model_sizes
from o1p_jax.planning.roofline import step_flops
from o1p_jax.planning.step_time import StepTime

_BFLOAT16 = 2
"""Bytes of a number."""
_USABLE = 0.9
"""Share of the memory that is used, as vLLM takes it."""


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """Seconds of each stage with all chips of the pod at work, and the job's price."""

    problems: int
    solution_tokens: int
    """A solution's mean length."""
    replica_chips: int
    """Chips that hold a copy of the model together for sampling."""
    batch: int
    """Rows that a replica decodes at a time."""
    sampling: float
    reference: float
    training: float
    steps: int
    dollars: float | None
    """US dollars of the round; None without a price."""
    rounds: int
    """How often all that is done, at most."""

    @property
    def hours(self) -> float:
        """Hours of all stages together."""
        return (self.sampling + self.reference + self.training) / 3600


def job_cost(
    cfg: RunConfig, model: DecoderConfig, topology: Topology, step_time: StepTime, problems: int,
    solution_tokens: int, price: float | None,
) -> JobCost:  # fmt: skip
    """Returns the cost of a job on `problems` problems whose solutions have `solution_tokens` tokens on average.

    Of several rounds with problems of their own, each has its share of them. `step_time` is the time of a step. `price`
    is a chip's hour in US dollars; None leaves the dollars out. A forward pass is taken to reach the utilisation of a
    step.
    """
    problems = math.ceil(problems / cfg.rounds) if cfg.splits_problems else problems
    sampled = problems * cfg.sampling.samples_per_problem
    chips, batch, rate = sampling_rate(model, topology, solution_tokens)
    chips = min(chips, topology.chips)
    replicas = topology.chips // chips
    kept = problems * cfg.method.m
    steps = cfg.optim.steps or -(-kept // cfg.batch.sequences) * cfg.optim.epochs
    forward = step_flops(model, kept * solution_tokens, solution_tokens) / 3
    sampling = sampled * solution_tokens / (rate * replicas)
    reference, training = forward / (step_time.mfu * step_time.peak_flops), steps * step_time.forecast
    hours = (sampling + reference + training) / 3600
    return JobCost(
        problems=problems, solution_tokens=solution_tokens, replica_chips=chips, batch=batch, sampling=sampling,
        reference=reference, training=training, steps=steps,
        dollars=None if price is None else hours * topology.chips * price, rounds=cfg.rounds,
    )  # fmt: skip


def sampling_rate(model: DecoderConfig, topology: Topology, tokens: int) -> tuple[int, int, float]:
    """Returns the chips of a replica, the rows that it decodes at a time, and the tokens that it decodes a second.

    A replica has the fewest chips whose memory is at most half full of weights.
    """
    chip, sizes = topology.chip, model_sizes(model)
    weights = sizes.total * _BFLOAT16
    chips = 1 << max(0, math.ceil(math.log2(2 * weights / (_USABLE * chip.memory))))
    cached = 2 * model.layers * model.kv_heads * model.head_dim * _BFLOAT16  # bytes a token
    batch = max(1, int((_USABLE * chip.memory * chips - weights) // (cached * tokens)))
    # All experts are read once some row goes to each of them; a row's keys and values are on average half of them all.
    read = (weights + batch * cached * tokens / 2) / (chip.memory_bandwidth * chips)
    computed = batch * 2 * sizes.multiplied / (chip.flops * chips)
    return chips, batch, batch / max(read, computed)
