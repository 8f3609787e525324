import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from o1p_jax.config.tree import OptimConfig
from o1p_jax.training.optimizer import learning_rate, make_optimizer

pytestmark = pytest.mark.core


def _rates(optim: OptimConfig, steps: int) -> list[float]:
    schedule = learning_rate(optim, steps)
    return [float(schedule(jnp.int32(s))) for s in range(steps + 1)]


def test_learning_rate_rises_over_the_warm_up_and_falls_to_zero():
    rates = _rates(OptimConfig(learning_rate=2.0, warmup=0.1), 40)
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(rates[22], 1.0, rtol=1e-6)  # the middle of the cosine
    np.testing.assert_allclose(rates[40], 0.0, atol=1e-6)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_without_warm_up_the_first_step_has_the_peak():
    assert _rates(OptimConfig(learning_rate=2.0, warmup=0.0), 10)[0] == 2.0
    assert _rates(OptimConfig(learning_rate=2.0, warmup=0.5), 1)[0] == 2.0


def test_three_steps_equal_pytorchs_adamw_with_clipped_gradients():
    optim = OptimConfig(max_grad_norm=1.0, weight_decay=0.1)
    rng = np.random.default_rng(0)
    values = {"kernel": rng.normal(size=(4, 3)), "norm": rng.normal(size=3)}
    theirs = {k: torch.tensor(v, requires_grad=True) for k, v in values.items()}
    groups = [{"params": [theirs["kernel"]], "weight_decay": 0.1}, {"params": [theirs["norm"]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    ours = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), values)
    optimizer = make_optimizer(optim)
    state = optimizer.init(ours)
    for _ in range(3):
        gradients = {k: rng.normal(size=v.shape) for k, v in values.items()}
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        adamw.step()
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jax.tree.map(jnp.float32, gradients), state, ours)
        ours = optax.apply_updates(ours, jax.tree.map(lambda u: -0.01 * u, updates))
    for name in values:
        np.testing.assert_allclose(ours[name], theirs[name].detach(), atol=1e-6)
