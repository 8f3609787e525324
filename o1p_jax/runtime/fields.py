"""A field of a configuration carries its check with it, and the names of the results that depend on it.

A stage's result depends on the fields that name the result in their `option`, and on the results before it
(`config.stages` collects the fields). So one look at a field tells what a change of the field costs.
"""

import dataclasses
import math
from typing import Any

from o1p_jax.runtime.errors import BadInput

SAMPLES = "samples"
GRADES = "grades"
WEIGHTS = "weights"
TRAINING = "training"
EVALUATION = "evaluation"

RESULTS = (SAMPLES, GRADES, WEIGHTS, TRAINING, EVALUATION)
"""The results of a job, in the order in which the job makes them."""


LARGEST_SEED = 2**31 - 1
"""The largest seed that every sampler and every random generator takes."""


def option(
    default: Any,
    *affects: str,
    sampler: str | None = None,
    init: bool = True,
    least: float = -math.inf,
    most: float = math.inf,
) -> Any:
    """Returns a dataclass field with this default, on which the results `affects` (of `RESULTS`; empty: none) depend.

    With `sampler`, what is sampled, for training and for evaluation, depends on the field only where that sampler is
    used. With `init=False` the class fixes the field's value; no flag and no argument sets it. `least` and `most` are
    the bounds of a number, which `check_numbers` holds it to.
    """
    unknown = set(affects) - set(RESULTS)
    if unknown:
        raise ValueError(f"unknown results {sorted(unknown)}; there are {RESULTS}")
    metadata = {"affects": affects, "sampler": sampler, "least": least, "most": most}
    return dataclasses.field(default=default, init=init, metadata=metadata)


def check_numbers(part: Any) -> None:
    """Raises BadInput for a number in `part` that is out of its field's bounds, infinite or NaN."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            least, most = field.metadata["least"], field.metadata["most"]
            check(part, field.name, math.isfinite(value), "must be a finite number")
            check(part, field.name, value >= least, f"must be at least {least:g}")
            check(part, field.name, value <= most, f"must be at most {most:,}")


def check(part: Any, field: str, ok: bool, remedy: str) -> None:
    """Unless `ok`, raises BadInput that names the field as its flag does, the field's value and the remedy."""
    if not ok:
        raise BadInput(f"{part.FLAG}{field}={getattr(part, field)}: {remedy}")
