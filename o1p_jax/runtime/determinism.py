"""A switch for the same bits from every run on GPUs, which add up in any order and choose kernels by the clock."""

import os

_XLA = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
"""No kernel that adds by atomic operations, and no choice of kernels by measured time (openxla/xla, xla.proto)."""
_VLLM = "VLLM_BATCH_INVARIANT"
"""vLLM's variable for kernels whose results do not depend on what else is in the batch."""


def fix_bits() -> None:
    """Sets the variables by which XLA and vLLM compute the same bits again, in this process and those it starts.

    The function must be called before JAX starts its backend, which reads its flags once.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*flags, *(flag for flag in _XLA if flag not in flags)])
    os.environ[_VLLM] = "1"
