"""Which of a job's results depend on which fields: read from the fields' own metadata (`runtime.fields.option`)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime.fields import EVALUATION, SAMPLES

_SAMPLED = (SAMPLES, EVALUATION)
"""The results that a sampler makes."""


def fields_of(config: Any, *results: str, sampler: str | None = None) -> dict[str, Any]:
    """Dotted name -> value of the fields in `config` (a run's, or a part of it) that these results directly depend on.

    Fields of another sampler than `sampler` do not count for what is sampled; None: the sampler that `config` uses.
    """
    if sampler is None and isinstance(config, RunConfig):
        sampler = config.sampling.sampler
    return {
        name: value
        for name, value, metadata in _leaves(config)
        if any(r in metadata["affects"] and not _of_another(metadata, r, sampler) for r in results)
    }


def _of_another(metadata: Any, result: str, sampler: str | None) -> bool:
    return result in _SAMPLED and metadata["sampler"] not in (None, sampler)


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and metadata of every field that is not a part of its own."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field.metadata
