"""The least memory that a job takes, reckoned from its settings: what can never fit is refused before it begins."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o1p_jax.config.chips import GIB
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices import processes
from o1p_jax.models.config import DecoderConfig
from o1p_jax.runtime.errors import BadInput
from o1p_jax.sampling.engine import FIRST_CAPACITY

_BATCH_BYTES = 21
"""Bytes of one token in the arrays of `training.packing.Batch`."""


class _Need(NamedTuple):
    """Bytes that the settings `flags` take at least, on hosts or devices."""

    flags: str
    needed: int
    there: int


def check_memory(cfg: RunConfig, model: DecoderConfig, *, training: bool, devices: bool) -> None:
    """Raises BadInput where the job takes more memory at least than its hosts, or its devices, have altogether.

    Without `devices` those are not asked, because asking would take their memory.
    """
    for need in _needs(cfg, model, training, devices):
        if need.needed > need.there:
            raise BadInput(
                f"{need.flags}: takes at least {need.needed / GIB:,.0f} GiB, and the job has {need.there / GIB:,.0f} "
                "GiB; lower it, or take more devices"
            )


def _needs(cfg: RunConfig, model: DecoderConfig, training: bool, devices: bool) -> Iterator[_Need]:
    width = jnp.dtype(cfg.compute.dtype).itemsize
    hosts = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * processes.count()
    batch, tokens = cfg.batch, cfg.batch.rows_per_microbatch * cfg.batch.row_length
    rows = f"batch.rows_per_microbatch={batch.rows_per_microbatch} x batch.row_length={batch.row_length}"
    slots = cfg.sampling.slots
    if training:
        yield _Need(rows, tokens * _BATCH_BYTES, hosts)
    if not devices:
        return
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    memory = sum(limits) * processes.count() or hosts  # a CPU's devices know no limit of their own
    if training:  # every layer's input, which the backward pass begins from
        yield _Need(rows, tokens * model.layers * model.hidden_size * width, memory)
    if "jax" in (cfg.sampling.sampler, cfg.evaluation_sampler):
        position = 2 * model.layers * model.kv_heads * model.head_dim * width
        yield _Need(f"sampling.slots={slots}", slots * min(FIRST_CAPACITY, cfg.sampling.max_tokens) * position, memory)
