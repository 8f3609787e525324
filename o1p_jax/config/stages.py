"""Tells which results of a job depend on which fields, by the fields' own metadata (`runtime.fields.option`)."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime.fields import EVALUATION, SAMPLES

_SAMPLED = (SAMPLES, EVALUATION)
"""The results that a sampler makes."""


def fields_of(config: Any, *results: str) -> dict[str, Any]:
    """Returns dotted name -> value of the fields in `config` that the `results` directly depend on.

    `config` is a run's configuration or a part of one. Samples and evaluation do not depend on the fields of other
    samplers than those that a run's `config` uses for them.
    """
    samplers = {}
    if isinstance(config, RunConfig):
        samplers = {SAMPLES: config.sampling.sampler, EVALUATION: config.evaluation_sampler}
    return {
        name: value
        for name, value, metadata in _leaves(config)
        if any(r in metadata["affects"] and not _of_another(metadata, r, samplers.get(r)) for r in results)
    }


def _of_another(metadata: Any, result: str, sampler: str | None) -> bool:
    return result in _SAMPLED and metadata["sampler"] not in (None, sampler)


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields dotted name, value and metadata of every field of `config` that is not a part with fields of its own."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field.metadata
