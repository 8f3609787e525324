"""O1-Pruner's reward, choice, weights and card: to the digit, to the bit, and at their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.methods.base import Group, Scored
from o1p_jax.methods.o1_pruner import O1Pruner, O1PrunerParams
from o1p_jax.runtime.errors import BadInput

pytestmark = pytest.mark.core

GROUPS = st.lists(st.tuples(st.integers(1, 10_000), st.booleans()), min_size=1, max_size=16)


def group_of(pairs, truncated=()) -> Group:
    truncated_K = np.array([k in truncated for k in range(len(pairs))])
    return Group(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], bool), truncated_K)


def reward(pairs, lam=2.0, **params):
    return O1Pruner().reward(group_of(pairs), O1PrunerParams(lam=lam, **params))


def weights(rewards, **params):
    """The weights of single samples that are all kept, each the only one of its problem."""
    rewards, numbers = np.asarray(rewards, np.float64), np.arange(len(rewards))
    scored = Scored(rewards, numbers, group_of([(1, True)] * len(rewards)), numbers[:, None])
    return O1Pruner().advantage(scored, O1PrunerParams(**params))


def zscore(rewards):
    return weights(rewards)


def bits(values):
    return [float(value).hex() for value in values]


def test_a_reference_gives_the_means_where_it_did_not_give_the_samples():
    of_first = group_of([(100, True), (200, False), (400, True)])._replace(reference=(300.0, 0.75))
    assert (of_first.mean_length, of_first.accuracy) == (300.0, 0.75)
    # 300/100 - 1 + 2 (1 - 3/4); 300/200 - 1 + 2 (0 - 3/4); 300/400 - 1 + 2 (1 - 3/4)
    assert O1Pruner().reward(of_first, O1PrunerParams(lam=2.0)).tolist() == [2.5, -1.0, 0.25]
    assert reward([(100, True), (200, False), (300, True)]).tolist() == pytest.approx([5 / 3, -4 / 3, 1 / 3])


def test_rewards_and_weights_to_the_bit():
    got = reward([(100, True), (200, True), (300, False), (400, True)])
    assert bits(got) == [
        "0x1.0000000000000p+1",
        "0x1.8000000000000p-1",
        "-0x1.aaaaaaaaaaaaap+0",
        "0x1.0000000000000p-3",
    ]
    assert bits(zscore(got)) == [
        "0x1.48ca8ed1588dcp+0", "0x1.5af203124dbcep-2", "-0x1.7d3c89541cdcfp+0", "-0x1.1254320e79009p-3",
    ]  # fmt: skip
    got = reward([(0, False), (7, True), (8192, False), (313, True), (313, False), (1, False)], lam=4.5)
    assert bits(got) == [
        "0x1.6f2aaaaaaaaabp+10", "0x1.a855555555556p+7", "-0x1.2903555555555p+1", "0x1.acd04a27cdd62p+2",
        "0x1.19a0944f9bac2p+1", "0x1.6f2aaaaaaaaabp+10",
    ]  # fmt: skip
    assert bits(zscore(got)) == [
        "0x1.2e39eb1f1beb5p-1", "0x1.2e39eb1f1beb5p-1", "-0x1.112cf0e744db8p+1", "0x1.2e39eb1f1beb5p-1",
        "-0x1.d0cfa37d70fb8p-3", "0x1.2e39eb1f1beb5p-1",
    ]  # fmt: skip


def test_golden_values():
    got = reward([(100, True), (200, True), (300, False), (400, True)])
    np.testing.assert_allclose(got, [2.0, 0.75, -5 / 3, 0.125], atol=1e-12)
    np.testing.assert_allclose(zscore(got), [1.284341, 0.338814, -1.489205, -0.133950], atol=1e-6)


def test_short_wrong_answer_can_outscore_long_right_one_unless_only_correct_ones_are_paid_for_length():
    """The known hazard: 500 tokens wrong against a mean near 4000."""
    pairs = [(500, False), *[(4000, True)] * 7]
    got = reward(pairs, lam=5.0)
    assert got[0] > got[1]
    got = reward(pairs, lam=5.0, length_term="correct_only")
    assert got[0] == 5.0 * (0 - 7 / 8) < got[1]


def test_golden_values_of_correct_only():
    """Lbar 250 and Abar 3/4 as above: only the third sample's 250 / 300 - 1 is missing, 2 (0 - 3/4) = -1.5 is left."""
    got = reward([(100, True), (200, True), (300, False), (400, True)], length_term="correct_only")
    np.testing.assert_allclose(got, [2.0, 0.75, -1.5, 0.125], atol=1e-12)
    # Mean .34375; squared deviations 2.743164, .165039, 3.399414, .047852 with mean 1.588867, whose root is 1.260503.
    np.testing.assert_allclose(zscore(got), [1.313960, 0.322292, -1.462710, -0.173542], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(GROUPS)
def test_of_correct_only_no_wrong_sample_has_a_positive_reward(group):
    got = reward(group, length_term="correct_only")
    assert all(r <= 0 for r, (_, right) in zip(got, group, strict=True) if not right)
    right = [k for k, (_, right) in enumerate(group) if right]
    np.testing.assert_array_equal(got[right], reward(group)[right])


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
    raw = np.array([-50.0, 50.0])
    np.testing.assert_array_equal(weights(raw, mode="paper"), raw)
    np.testing.assert_array_equal(O1Pruner().bounded(raw, O1PrunerParams()), [-2.0, 4.0])


def choose(pairs, lots, cut=(), **params):
    group = group_of(pairs, cut)
    return O1Pruner().choose(group, np.zeros(len(pairs)), np.array(lots), group.length_K > 0, O1PrunerParams(**params))


def test_the_first_m_by_lot_are_chosen_one_by_one():
    pairs = [(10, True), (0, True), (20, False), (30, True)]
    np.testing.assert_array_equal(choose(pairs, [3, 0, 1, 2], m=2), [[2], [3]])  # sample 1 is empty


@settings(deadline=None, max_examples=50)
@given(GROUPS, st.randoms(), st.integers(1, 4), st.sampled_from(["keep", "drop"]))
def test_chosen_are_m_different_eligible_samples(pairs, random, m, truncated):
    cut = [k for k in range(len(pairs)) if random.random() < 0.3]
    lots = random.sample(range(len(pairs)), len(pairs))
    chosen = choose(pairs, lots, cut, m=m, truncated=truncated)
    eligible = [k for k in range(len(pairs)) if truncated == "keep" or k not in cut]
    assert chosen.shape == (min(m, len(eligible)), 1)
    assert chosen.ravel().tolist() == sorted(eligible, key=lots.__getitem__)[:m]


def test_modes_fill_in_what_is_left_out():
    assert (O1PrunerParams().ratio_kind, O1PrunerParams().normalization) == ("geometric", "zscore")
    paper = O1PrunerParams(mode="paper")
    assert (paper.ratio_kind, paper.normalization, paper.reward_range) == ("sequence", "none", None)
    assert O1PrunerParams(mode="paper", ratio="geometric").ratio_kind == "geometric"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lam", -1.0),
        ("epsilon", 0.0),
        ("epsilon", 1.0),
        ("m", 0),
        ("reward_low", 9.0),
        ("max_log_ratio", 100.0),
        ("reward", "mine"),
        ("reward", "mine.txt:f"),
        ("reward", "mine.py:"),
        ("reward", "mine.py:not a name"),
    ],
)
def test_bad_values_name_their_field(field, value):
    with pytest.raises(BadInput, match=rf"^method\.{field}=") as error:
        O1PrunerParams(**{field: value})
    assert "\n" not in str(error.value)


def test_the_card_says_what_was_done():
    code = O1Pruner().card(O1PrunerParams(lam=4.5, epsilon=0.05, m=8), None)
    for said in (
        "`code` mode",
        "L(y) - 1 + 4.5 ·",
        "m = 8",
        "clipped to [-2.0, 4.0], z-scored",
        "1 + 0.05) · R)",
    ):
        assert said in code
    paper = O1Pruner().card(O1PrunerParams(mode="paper"), None)
    assert "`paper` mode" in paper and not any(word in paper for word in ("clipped", "z-scored", "geometric"))
    said = "Of a wrong solution's reward"
    assert said in O1Pruner().card(O1PrunerParams(length_term="correct_only"), None) and said not in code
    own = O1Pruner().card(O1PrunerParams(), "what `mine.py:f` gave it")
    assert "what `mine.py:f` gave it" in own and "L(y)" not in own and "1 + 0.2) · R)" in own
