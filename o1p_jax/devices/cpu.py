"""What makes XLA's programs faster on a host's own processors."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Names of glibc's mallopt(3)."""
_NEVER, _NONE = -1, 0


def compile_short_loops_as_vectors() -> None:
    """Sets, before JAX's backend is used, how XLA compiles for a CPU; XLA_FLAGS of xla_backend_extra_options win.

    LLVM unrolls short loops before it looks for vectors: a copy of a head's 32 numbers becomes 32 loads and stores, and
    copying keys and values is the largest part of the embedded sampler's work. XLA's CPU compiler alone reads the
    option.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true".strip()


def cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> None:
    """Lets this process keep the memory that it has had once, where the C library is glibc.

    Otherwise the arrays of a step go back to the kernel, which hands them out again page by page, all zeros, in the
    next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_MAX, _NONE)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
