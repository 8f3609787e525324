"""What a field of a configuration carries with it: its check, and which results depend on it.

A stage's result depends on the fields that name it here and on the results before it (`config.stages` adds them up). So
one look at a field tells what a change of it costs.
"""

import dataclasses
from typing import Any

from o1p_jax.runtime.errors import BadInput

SAMPLES = "samples"
GRADES = "grades"
WEIGHTS = "weights"
TRAINING = "training"
EVALUATION = "evaluation"

RESULTS = (SAMPLES, GRADES, WEIGHTS, TRAINING, EVALUATION)
"""In the order in which a job makes them."""


def option(default: Any, *affects: str, sampler: str | None = None, init: bool = True) -> Any:
    """A dataclass field with this default, on which the results `affects` (of `RESULTS`; none: nothing) depend.

    `sampler`: what is sampled, for training and for evaluation, depends on the field only where this sampler is used.
    `init=False`: the class fixes the field's value; no flag and no argument sets it.
    """
    unknown = set(affects) - set(RESULTS)
    if unknown:
        raise ValueError(f"unknown results {sorted(unknown)}; there are {RESULTS}")
    return dataclasses.field(default=default, init=init, metadata={"affects": affects, "sampler": sampler})


def check(part: Any, field: str, ok: bool, remedy: str) -> None:
    """Raises BadInput that names the field as its flag does, its value and the remedy, unless `ok`."""
    if not ok:
        raise BadInput(f"{part.FLAG}{field}={getattr(part, field)}: {remedy}")
