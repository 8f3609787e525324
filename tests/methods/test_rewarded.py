"""How rewards become advantages: against plain loops, and where nothing differs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.rewarded import RewardedParams, normalized, standardized
from o1p_jax.runtime.errors import BadInput

POOLS = st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=6), min_size=1, max_size=5)


def scored_of(rewards, kept) -> Scored:
    reward_N = np.array([r for group in rewards for r in group], float)
    problem_N = np.repeat(np.arange(len(rewards)), [len(group) for group in rewards])
    some = np.ones(len(reward_N), int)
    return Scored(reward_N, problem_N, Group(some, some > 0, some < 0), np.array(kept, int).reshape(-1, 1))


def by_loops(rewards, how, taught):
    got, over_all = [], []
    for group, counts in zip(rewards, taught, strict=True):
        for k, r in enumerate(group):
            others = group[:k] + group[k + 1 :]
            baseline = np.mean(others or [r]) if how == "leave_one_out" else np.mean(group)
            got.append((r - baseline) / (np.std(group) or 1.0 if how == "group" else 1.0))
            over_all += [r - baseline] if counts else []
    std = np.std(over_all or [0.0])
    return np.array(got) / std if how == "batch" and std else np.array(got) * (how != "batch")


@settings(deadline=None, max_examples=60)
@given(POOLS, st.sampled_from(["mean", "leave_one_out", "group", "batch"]), st.randoms())
def test_advantages_are_what_plain_loops_give(rewards, how, random):
    count = sum(map(len, rewards))
    kept = [n for n in range(count) if random.random() < 0.5]
    scored = scored_of(rewards, kept)
    taught = [any(scored.problem_N[n] == p for n in kept) for p in range(len(rewards))]
    got = normalized(scored.reward_N, scored, how)
    np.testing.assert_allclose(got, by_loops(rewards, how, taught), atol=1e-9)


def test_rewards_that_differ_by_rounding_have_no_advantage():
    for how in ("group", "batch"):
        scored = scored_of([[0.1 + 0.2, 0.3], [1.1, 1.1, 1.1]], range(5))
        np.testing.assert_array_equal(normalized(scored.reward_N, scored, how), np.zeros(5))
    assert normalized(np.zeros(0), scored_of([], []), "group").size == 0


def test_standardized_over_some():
    values, among = np.array([1.0, 3.0, 7.0]), np.array([True, True, False])
    np.testing.assert_allclose(standardized(values, among), [-1, 1, 5])
    np.testing.assert_array_equal(standardized(values, among & False), np.zeros(3))
    np.testing.assert_array_equal(standardized(values, np.array([False, True, False])), np.zeros(3))


@pytest.mark.parametrize(
    ("field", "value"), [("epsilon", 0.0), ("epsilon", 1.0), ("epsilon_high", -0.1), ("max_log_ratio", 0.0), ("m", 0)]
)
def test_bad_values_name_their_field(field, value):
    with pytest.raises(BadInput, match=rf"^method\.{field}="):
        RewardedParams(**{field: value})


def test_what_is_left_out_is_filled_in():
    assert RewardedParams().resolved() == {"normalize": "group", "epsilon_high": 0.2}
    assert RewardedParams(normalize="none", epsilon_high=0.28).resolved() == {"normalize": "none", "epsilon_high": 0.28}
