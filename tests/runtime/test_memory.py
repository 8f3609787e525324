"""Memory that does not suffice: real classes of errors with the words of real libraries."""

import jax
import numpy as np
import pytest

from o1p_jax.runtime.errors import BadInput, DiskError, OutOfMemory, SamplerGone
from o1p_jax.runtime.memory import lacking_memory, memory_errors

TPU_COMPILE = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 19.45G of "
    "15.48G hbm. Exceeded hbm capacity by 3.97G.\n\nTotal hbm usage >= 19.97G:\n    reserved        530.00M"
)
TPU_RUN = (
    "RESOURCE_EXHAUSTED: Attempting to reserve 8.42G at the bottom of memory. That was not possible. There are 7.25G "
    "free, 0B reserved, and 7.25G reservable."
)
GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."
GPU_DRIVER = "INTERNAL: Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory"
TORCH = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 1.1 GiB is free."
)
VLLM_CACHE = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing."
VLLM_LENGTH = "To serve at least one request with the models's max seq len (32768), (4.0 GiB KV cache is needed, ...)"
VLLM_START = (
    "Free memory on device (3.2/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.3 GiB)."
)


class OutOfMemoryError(RuntimeError):
    """Stands for PyTorch's class of this name."""


def wrapped(cause: Exception) -> SamplerGone:
    error = SamplerGone("vLLM did not start")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "need"),
    [
        (jax.errors.JaxRuntimeError(TPU_COMPILE), "Used 19.45G of 15.48G hbm. Exceeded hbm capacity by 3.97G)"),
        (jax.errors.JaxRuntimeError(TPU_RUN), "Attempting to reserve 8.42G"),
        (jax.errors.JaxRuntimeError(GPU), "memory did not suffice (Out of memory while trying to allocate 16.00 GiB)"),
        (jax.errors.JaxRuntimeError(GPU_DRIVER), "CUDA_ERROR_OUT_OF_MEMORY"),
        (OutOfMemoryError(TORCH), "Tried to allocate 2.00 GiB"),
        (wrapped(ValueError(VLLM_CACHE)), "No available memory for the cache blocks"),
        (wrapped(ValueError(VLLM_LENGTH)), "4.0 GiB KV cache is needed"),
        (wrapped(ValueError(VLLM_START)), "3.2/79.2 GiB"),
        (MemoryError("Unable to allocate 8.00 TiB"), "the host's memory did not suffice (Unable to allocate 8.00 TiB)"),
        (MemoryError(), "the host's memory did not suffice"),
    ],
)  # fmt: skip
def test_each_library_is_understood(error, need):
    with pytest.raises(OutOfMemory) as told, memory_errors("train", ["--a=1", "--b=2"]):
        raise error
    line = str(told.value)
    assert line.startswith("train: ") and need in line and "\n" not in line and len(line) < 400
    assert line.endswith("what helps, the cheapest first: --a=1, --b=2")


def test_a_real_device_that_is_too_small():
    with pytest.raises(OutOfMemory, match=r"train: the device's memory did not suffice \(Out of memory"), \
            memory_errors("train", []):  # fmt: skip
        jax.numpy.zeros(1 << 50, np.int8).block_until_ready()


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Received message larger than max (5 vs. 4)"),
        jax.errors.JaxRuntimeError("INTERNAL: Connection closed by peer"),
        ValueError('RESOURCE_EXHAUSTED: Error writing "w/c/0" in memory of disk: No space left on device'),
        BadInput("--config=out of memory.py: no such file"),
        wrapped(ValueError("Unknown architecture")),
    ],
)
def test_other_errors_are_left_alone(error):
    assert lacking_memory(error) is None
    with pytest.raises(type(error)), memory_errors("train", []):
        raise error


def test_a_full_disk_is_no_lack_of_memory():
    error = DiskError("x: no space left on device")
    error.__cause__ = jax.errors.JaxRuntimeError(GPU)
    assert lacking_memory(error) is None
