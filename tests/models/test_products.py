"""Products with weights: their derivatives, and the types that are multiplied for them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1p_jax.models.products import product

SHAPES = {
    "BLD,DF->BLF": ((2, 3, 4), (4, 5)),
    "BLD,DHK->BLHK": ((2, 3, 4), (4, 2, 5)),
    "BLHK,HKD->BLD": ((2, 3, 2, 5), (2, 5, 4)),
}


def factors(equation: str, dtype: str) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES[equation])
    return x.astype(dtype), weight


@pytest.mark.parametrize("equation", SHAPES)
def test_derivatives_are_those_of_einsum(equation):
    def of(function):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(function(*args))), argnums=(0, 1))(*factors(equation, "float32"))

    for ours, theirs in zip(of(lambda *a: product(equation, *a)), of(lambda *a: jnp.einsum(equation, *a)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("equation", SHAPES)
def test_all_factors_are_of_the_activations_type_and_all_sums_float32(equation, dtype):
    x, weight = factors(equation, dtype)

    def loss(x, weight):
        return jnp.sum(product(equation, x, weight))

    assert product(equation, x, weight).dtype == jnp.float32
    d_x, d_weight = jax.grad(loss, argnums=(0, 1))(x, weight)
    assert (d_x.dtype, d_weight.dtype) == (jnp.dtype(dtype), jnp.float32)
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, weight).as_text()
    products = re.findall(r"dot_general .* : \((.*)\) -> (.*)", text)
    short = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    assert len(products) == 2
    for multiplied, sums in products:
        assert multiplied.count(f"x{short}>") == 2 and sums.endswith("xf32>")
