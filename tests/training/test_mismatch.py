"""How far the sampler's log-probabilities are from the trainer's."""

import math

import numpy as np
import pytest

from o1p_jax.training.mismatch import MUCH, Mismatch, mismatch


def test_figures_worked_by_hand():
    sampler = {0: np.array([-1.0, -2.0]), 1: np.array([-0.5]), 7: np.array([-9.0])}
    trainer = {0: np.array([-1.2, -2.0]), 1: np.array([-0.45]), 3: np.array([-1.0])}
    found = mismatch(sampler, trainer)
    assert (found.samples, found.tokens) == (2, 3)
    assert found.mean == pytest.approx(0.25 / 3) and found.median == pytest.approx(0.05)
    assert found.largest == pytest.approx(0.2) and 0.19 < found.p99 <= 0.2
    assert found.tenth == pytest.approx(1 / 3)  # exp(-0.2) is .82, exp(0.05) is 1.05
    assert found.kl == pytest.approx((math.exp(-0.2) - 0.8 + math.exp(0.05) - 1.05) / 3)
    assert not found.warns and "docs" not in found.line()
    assert found.for_metrics()["mismatch_tokens"] == 3.0
    assert Mismatch.from_metrics({"loss": 1.0, **found.for_metrics()}) == found
    assert Mismatch.from_metrics({"loss": 1.0}) is None
    assert Mismatch.from_metrics(found.for_metrics() | {"mismatch_mean": None}).warns  # JSON has no NaN


def test_rounding_does_not_warn_and_what_is_not_finite_does():
    trainer = {0: np.linspace(-3, 0, 50)}
    near = mismatch({0: trainer[0] + 0.9 * MUCH}, trainer)
    assert not near.warns and "rounding" not in near.line()
    far = mismatch({0: trainer[0] + 1.1 * MUCH}, trainer)
    assert far.warns and "docs/mismatch.md" in far.line()
    broken = mismatch({0: np.full(50, np.nan)}, trainer)
    assert broken.warns and broken.tenth == 1.0
    assert mismatch({0: np.full(50, -2000.0)}, trainer).warns


def test_an_estimate_of_the_divergence_between_two_distributions():
    rng = np.random.default_rng(0)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    drawn = rng.choice(3, 200_000, p=p)
    found = mismatch({0: np.log(p)[drawn]}, {0: np.log(q)[drawn]})
    assert found.kl == pytest.approx(float(np.sum(p * np.log(p / q))), rel=0.03)


def test_nothing_to_compare():
    assert mismatch({}, {0: np.zeros(3)}) is None
    assert mismatch({1: np.zeros(3)}, {0: np.zeros(3)}) is None
    assert mismatch({0: np.zeros(0)}, {0: np.zeros(0)}) is None
