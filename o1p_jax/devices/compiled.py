"""What JAX compiles is kept in the user's cache folder, so that a second start compiles nothing."""

import hashlib
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

import jax

from o1p_jax.runtime.files import user_cache

_MOST_BYTES = 4 * 2**30
"""The programs used longest ago go where there are more."""


def keep_compiled() -> None:
    """Lets JAX read and write compiled programs in a folder of the user's cache, from now on.

    A folder that JAX's own settings name (JAX_COMPILATION_CACHE_DIR) has its way, as has JAX_ENABLE_COMPILATION_CACHE.
    A folder that can't be written costs time only.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = user_cache() / "compiled" / _machine()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        # A start that was killed may leave half a program, which JAX tells of each time, and compiles.
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry", UserWarning)


def _machine() -> str:
    """Returns a name of this kind of processor: what was compiled for another, on a shared home, might not run here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = os.uname().machine
    kind = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    return hashlib.sha256("\n".join(sorted(set(kind))).encode()).hexdigest()[:16]
