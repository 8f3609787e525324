"""o1p_jax: length-harmonizing fine-tuning (O1-Pruner, arXiv 2501.12570) in JAX and Flax."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["check_parity"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported when asked for: the host side works without JAX
        from o1p_jax.models.parity import check_parity

        return check_parity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
