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


class _Need(NamedTuple):
    """Bytes that the settings `flags` take at least, on hosts or devices."""

    flags: str
    needed: int
    there: int


def check_memory(cfg: RunConfig, model: DecoderConfig) -> None:
    """Raises BadInput where sampling takes more memory at least than the job's devices have altogether.

    Training asks for none that must be there: its microbatches are as large as the memory allows.
    """
    for need in _needs(cfg, model):
        if need.needed > need.there:
            raise BadInput(
                f"{need.flags}: takes at least {need.needed / GIB:,.0f} GiB, and the job has {need.there / GIB:,.0f} "
                "GiB; lower it, or take more devices"
            )


def _needs(cfg: RunConfig, model: DecoderConfig) -> Iterator[_Need]:
    if "jax" not in (cfg.sampling.sampler, cfg.evaluation_sampler):
        return
    hosts = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * processes.count()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    memory = sum(limits) * processes.count() or hosts  # a CPU's devices know no limit of their own
    slots = cfg.sampling.slots
    position = 2 * model.layers * model.kv_heads * model.head_dim * jnp.dtype(cfg.compute.dtype).itemsize
    yield _Need(f"sampling.slots={slots}", slots * min(FIRST_CAPACITY, cfg.sampling.max_tokens) * position, memory)
