"""The reward to the digit, and its edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.methods.o1_pruner import length_harmonizing, normalize

GROUPS = st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), min_size=1, max_size=16)


def reward(group, lam=2.0):
    length_K, correct_K = np.array([g[0] for g in group]), np.array([g[1] for g in group])
    return length_harmonizing(length_K, correct_K, lam)


def zscore(rewards, limits=(-2.0, 4.0)):
    return normalize(np.asarray(rewards, np.float64), kind="zscore", limits=limits)


def test_golden_values():
    got = reward([(100, True), (200, True), (300, False), (400, True)])
    np.testing.assert_allclose(got, [2.0, 0.75, -5 / 3, 0.125], atol=1e-12)
    np.testing.assert_allclose(zscore(got), [1.284341, 0.338814, -1.489205, -0.133950], atol=1e-6)


def test_short_wrong_answer_can_outscore_long_right_one():
    """The known hazard: 500 tokens wrong against a mean near 4000."""
    got = reward([(500, False), *[(4000, True)] * 7], lam=5.0)
    assert got[0] > got[1]


@settings(deadline=None, max_examples=50)
@given(GROUPS)
def test_shorter_is_better_at_equal_correctness_and_right_beats_wrong_at_equal_length(group):
    got = reward(group)
    for (length_a, right_a), r_a in zip(group, got, strict=True):
        for (length_b, right_b), r_b in zip(group, got, strict=True):
            if right_a == right_b and length_a < length_b:
                assert r_a > r_b
            if length_a == length_b and right_a and not right_b:
                assert r_a == pytest.approx(r_b + 2.0)


@settings(deadline=None, max_examples=50)
@given(GROUPS, st.randoms())
def test_order_does_not_matter(group, random):
    order = list(range(len(group)))
    random.shuffle(order)
    np.testing.assert_allclose(reward([group[i] for i in order]), reward(group)[order], rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(GROUPS, st.integers(2, 9))
def test_only_relative_length_counts(group, factor):
    np.testing.assert_allclose(reward([(n * factor, c) for n, c in group]), reward(group), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("correct", [True, False])
def test_all_right_and_all_wrong_leave_length_alone(correct):
    np.testing.assert_allclose(reward([(100, correct), (300, correct)]), [1.0, -1 / 3])


def test_all_truncated_at_one_length_and_a_single_sample_give_zero():
    np.testing.assert_array_equal(reward([(8192, False)] * 4), np.zeros(4))
    np.testing.assert_array_equal(reward([(17, True)]), [0.0])


def test_empty_completions_stay_finite():
    assert np.isfinite(reward([(0, False), (100, True)])).all()
    np.testing.assert_array_equal(reward([(0, False), (0, False)]), [0.0, 0.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_zscore_has_mean_0_and_std_1_or_is_0(rewards):
    got = zscore(rewards)
    assert np.isfinite(got).all()
    if np.std(np.clip(rewards, -2, 4)) > 1e-3:
        assert got.mean() == pytest.approx(0, abs=1e-9) and got.std() == pytest.approx(1)


def test_equal_rewards_and_none_at_all():
    np.testing.assert_array_equal(zscore([0.1 + 0.2, 0.3]), [0.0, 0.0])
    assert zscore([]).size == 0


def test_clipping_comes_first_and_paper_mode_leaves_rewards_alone():
    np.testing.assert_allclose(zscore([-50.0, 50.0, 1.0]), zscore([-2.0, 4.0, 1.0]))
    np.testing.assert_array_equal(normalize(np.array([-50.0, 50.0]), kind="none", limits=None), [-50.0, 50.0])
