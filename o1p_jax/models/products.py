"""Products of activations with weights, whose derivatives multiply in the activations' type as well."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, x: Float[Array, "*X"], weight: Float[Array, "*W"]) -> Float[Array, "*Y"]:
    """Returns the einsum of `x` and `weight`, whose factors are of the type of `x`, and whose sums are float32.

    `equation` names each index of a factor once, as "BLD,DF->BLF" does. The derivatives' products have factors of that
    type too. JAX's own derivative of a product with a float32 result multiplies the float32 derivative of the result:
    on a GPU at half the rate (TF32), for two thirds of all arithmetic.
    """
    return _sums(equation, x, weight.astype(x.dtype))


def _forward(equation: str, x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(equation, x, weight), (x, weight)


def _backward(equation: str, saved: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, weight = saved
    of_x, of_weight, of_out = equation.replace("->", ",").split(",")
    d_out = d_out.astype(x.dtype)
    d_x = _sums(f"{of_out},{of_weight}->{of_x}", d_out, weight.astype(x.dtype))
    d_weight = _sums(f"{of_x},{of_out}->{of_weight}", x, d_out)
    return d_x.astype(x.dtype), d_weight.astype(weight.dtype)


product.defvjp(_forward, _backward)


def _sums(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
