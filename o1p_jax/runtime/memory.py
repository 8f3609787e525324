"""Memory that does not suffice, a device's or the host's, is told in one line: the stage, the need, and what helps.

JAX, PyTorch, vLLM and Python each report it in their own words. They are told apart by these words, because nothing in
this folder imports them.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from o1p_jax.runtime.errors import O1pError, OutOfMemory, SamplerGone

_JAX = {"JaxRuntimeError", "XlaRuntimeError"}
_OF_JAX = re.compile(
    r"RESOURCE_EXHAUSTED.*(memory|allocat|reserve)|CUDA_ERROR_OUT_OF_MEMORY", re.DOTALL | re.IGNORECASE
)
_OF_OTHERS = re.compile(
    r"(CUDA|HIP|XPU) out of memory|CUDA_ERROR_OUT_OF_MEMORY|No available memory for the cache blocks"
    r"|KV cache is needed|less than desired GPU memory utilization"
)
_LONGEST = 240
"""How many characters of a library's own words are shown."""


@contextmanager
def memory_errors(stage: str, remedies: Sequence[str]) -> Iterator[None]:
    """An exception of the block that says that memory did not suffice is raised as `OutOfMemory`.

    `remedies` are flags or other changes that help, the one that costs least first.
    """
    try:
        yield
    except Exception as e:
        if (need := lacking_memory(e)) is None:
            raise
        raise OutOfMemory(f"{stage}: {need}; what helps, the cheapest first: {', '.join(remedies)}") from e


def lacking_memory(error: BaseException) -> str | None:
    """Returns, in words, what memory the `error` or one of its causes says was lacking; None: it says no such thing."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return _in_words("the host's memory did not suffice", str(error))
    if isinstance(error, O1pError) and not isinstance(error, SamplerGone):  # it says already what was lacking
        return None
    words = _OF_JAX if type(error).__name__ in _JAX else _OF_OTHERS
    if words.search(str(error)):
        return _in_words("the device's memory did not suffice", str(error))
    return None if error.__cause__ is None else lacking_memory(error.__cause__)


def _in_words(what: str, text: str) -> str:
    """Returns `what` with the library's own words, which say how much, behind it: one line, bytes as GiB."""
    text = re.sub(r".*RESOURCE_EXHAUSTED:", "", text, flags=re.DOTALL).strip()
    text = re.sub(r"(\d{7,}) bytes", lambda number: f"{int(number[1]) / 2**30:.2f} GiB", text.split("\n\n")[0])
    text = " ".join(text.split()).rstrip(".")
    return f"{what} ({text[:_LONGEST]})" if text else what
