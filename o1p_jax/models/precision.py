"""How exactly matrix products are computed, which the hardware decides where nobody asks."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

F = TypeVar("F", bound=Callable)


def products_of(dtype: DTypeLike) -> Callable[[F], F]:
    """Returns a decorator for functions that compute in `dtype`: with float32, their products are float32 as well.

    Left alone, a GPU rounds float32 factors to TF32 (10 bits of fraction) and a TPU to bfloat16 (7 bits). The setting
    counts while a function is traced, so that the whole function that is jitted is decorated, gradients included.
    """
    return jax.default_matmul_precision("highest" if jnp.dtype(dtype) == jnp.float32 else "default")
