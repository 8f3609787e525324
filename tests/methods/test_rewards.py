"""Every rival's reward, advantage and choice by numbers worked by hand, and at their edges."""

import numpy as np
import pytest

from o1p_jax.methods import METHODS
from o1p_jax.methods.base import Group, Scored

GOLDEN = [(100, True), (200, True), (300, False), (400, True)]
"""Of the correct lengths 100, 200, 400 the mean is 233.333 and the standard deviation 124.7219 (variance 15555.56), so
that z = -1.069045, -0.267261 and 1.336306, with sigmoids .255585, .433580 and .791882."""
HARD = [(50, False), (60, False), (70, True), (80, False)]


def group_of(pairs, cut=()) -> Group:
    columns = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], bool)
    return Group(*columns, np.array([k in cut for k in range(len(pairs))]))


def rewards(name, *groups, **params):
    """The rewards of a pool of these problems, problem after problem."""
    method = METHODS[name]
    return np.concatenate(method.rewards([group_of(pairs) for pairs in groups], method.Params(**params)))


def choose(name, pairs, usable=None, lots=None, cut=(), **params):
    method, group = METHODS[name], group_of(pairs, cut)
    params = method.Params(**params)
    usable_K = np.array([usable is None or k in usable for k in range(len(pairs))])
    lot_K = np.arange(len(pairs)) if lots is None else np.array(lots)
    return method.choose(group, method.reward(group, params), lot_K, usable_K, params).tolist()


def weights(name, *groups, kept=None, **params):
    """The weights of a pool of these problems, of whose samples `kept` (all, if left out) are units of their own."""
    method = METHODS[name]
    params = method.Params(**params)
    of = [group_of(pairs) for pairs in groups]
    reward_N = np.concatenate(method.rewards(of, params))
    problem_N = np.repeat(np.arange(len(of)), [len(pairs) for pairs in groups])
    whole = Group(*(np.concatenate(column) for column in zip(*(group[:3] for group in of), strict=True)))
    units_US = np.array(range(len(reward_N)) if kept is None else kept, int).reshape(-1, params.UNIT)
    return method.advantage(Scored(reward_N, problem_N, whole, units_US), params)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        # 1 - .2 sigmoid(z)
        ("tlmre", {}, [0.948883, 0.913284, 0, 0.841624]),
        # lam = .5, .5 - 1/3, .5 - 2/3, -.5; the third sample is wrong: 0 + min(0, -1/6)
        ("kimi_k15", {}, [1.5, 1 + 1 / 6, -1 / 6, 0.5]),
        ("kimi_k15", {"weight": 0.5}, [1.25, 1 + 1 / 12, -1 / 12, 0.75]),
        # 2 - .001 |L - 100|; the wrong one 0 - .001 * 200
        ("shorter_better", {}, [2.0, 1.9, -0.2, 1.7]),
        ("think_prune", {"limit": 200}, [1, 1, 0, 0]),
        ("dler", {"limit": 199}, [1, 0, 0, 0]),
        # 3/4 right: easy, of K = 4 such a problem has int(8/3) = 2 right: half of the samples lie within 200
        ("laser_d", {}, [1.5, 1.5, 0, 1]),
        ("laser_d", {"expected": 2}, [1.5, 1.5, 0, 1.5]),
        ("laser_d", {"grain": 1024, "bonus": 0.25}, [1.25, 1.25, 0, 1.25]),
        # 1 - .001 * L * 3/4
        ("alp", {"beta": 0.001}, [0.925, 0.85, -0.225, 0.7]),
        # exp(-.05 z)
        ("grpo_lead", {}, [1.054907, 1.013453, -1, 0.935368]),
        # 1 + 1.2 * .95 * (1, 2/3, 0) + .05
        ("jet", {}, [2.19, 1.81, 0, 1.05]),
        ("grpo_lambda", {}, [0.948883, 0.913284, 0, 0.841624]),
        ("grpo_lambda", {"top": 0.0}, [1, 1, 0, 1]),
        # the only problem has the pool's pass rate: b = 0, sigmoid(0) = 1/2
        ("deep_compress", {}, [1.1, 1.1, -1, 1.1]),
        # B = .85 * 233.333 = 198.333; 1 - 100 / B = .495798; log(1 + 5 * .495798) / log 6 = .695820
        ("acoer", {}, [1 + 0.5 * 0.695820, 1, 0, 1]),
        ("gfpo", {}, [1, 1, 0, 1]),
        ("gdpo", {"limit": 200}, [2, 2, 0, 1]),
        ("gdpo", {"limit": 300, "conditioned": False, "weight": 0.5}, [1.5, 1.5, 0.5, 1]),
        ("luspo", {}, [1, 1, 0, 1]),
        ("dot", {"cut": 0.0}, [1, 1, 0, 1]),  # not all correct: nothing is cut
        # budget = 3/4 * 233.333 + 1/4 * 400 = 275; d = -.636364, -.272727, .090909, .454545
        ("dast", {}, [0.818182, 0.636364, -0.1, 0.272727]),
        # budget = 175 + 1/4 * 1000 = 425; d of the wrong one = -.294118: .9 d - .1 = -.364706
        ("dast", {"longest": 1000}, [0.882353, 0.764706, -0.364706, 0.529412]),
    ],
)
def test_rewards_by_hand(name, params, expected):
    np.testing.assert_allclose(rewards(name, GOLDEN, **params), expected, atol=1e-6)


def test_a_wrong_sample_is_never_paid_for_being_short():
    """Kimi's wrong samples below the middle earn 0, those above it pay."""
    np.testing.assert_allclose(rewards("kimi_k15", [(10, False), (90, False), (110, True)]), [0, -0.3, 0.5])


def test_rewards_that_depend_on_the_other_problems():
    # GOLDEN is right in 3 of 4, HARD in 1 of 4: only the first of them is among the best half
    np.testing.assert_allclose(
        rewards("grpo_lambda", GOLDEN, HARD), [0.948883, 0.913284, 0, 0.841624, 0, 0, 1, 0], atol=1e-6
    )
    # b = 3/4 - 1/2 and 1/4 - 1/2. z over all samples: (100 - 250) / 111.8034 = -1.341641, -.447214 and so on; of HARD,
    # (70 - 65) / 11.18034 = .447214. sigmoid(.25 * 1.341641) = .583076, sigmoid(.111803) = .527922
    expected = [1 + 0.2 * 0.583076, 1 + 0.2 * 0.527922, -1, 1 + 0.2 * 0.416924, -1, -1, 1 + 0.2 * 0.527922, -1]
    np.testing.assert_allclose(rewards("deep_compress", GOLDEN, HARD), expected, atol=1e-6)
    # of the right lengths 100, 200, 400 and 70 the mean is 192.5, B = 163.625; log(1 + 5 * .388846) / log 6 = .602675,
    # log(1 + 5 * .572193) / log 6 = .753961
    expected = [1 + 0.5 * 0.602675, 1, 0, 1, 0, 0, 1 + 0.5 * 0.753961, 0]
    np.testing.assert_allclose(rewards("acoer", GOLDEN, HARD), expected, atol=1e-6)
    # of problems as hard as HARD, with one right sample of 4, that one is expected only within the longest, 90
    got = rewards("laser_d", GOLDEN, HARD, [(20, False), (30, False), (30, False), (90, True)])
    np.testing.assert_allclose(got, [1.5, 1.5, 0, 1, 0, 0, 1.5, 0, 0, 0, 0, 1.5])
    # Lmax = 400: HARD's budget is 1/4 * 70 + 3/4 * 400 = 317.5; d = -.842520, -.811024, -.779528, -.748031
    expected = [-0.858268, -0.829921, 0.889764, -0.773228]
    np.testing.assert_allclose(rewards("dast", HARD, [(400, True)])[:4], expected, atol=1e-6)


def test_shorter_better_takes_the_mean_where_nothing_is_right():
    np.testing.assert_allclose(rewards("shorter_better", [(100, False), (300, False)]), [-0.1, -0.1])


def test_dot_cuts_far_outliers_of_solved_problems_only():
    """Mean 200, std 173.205: with cut 1 the end is at floor(373.205), 127 tokens before the longest sample's."""
    solved = [(100, True), (100, True), (100, True), (500, True)]
    np.testing.assert_array_equal(rewards("dot", solved, cut=1.0), [1, 1, 1, 0])
    np.testing.assert_array_equal(rewards("dot", solved, cut=1.0, margin=127), [1, 1, 1, 0])
    np.testing.assert_array_equal(rewards("dot", solved, cut=1.0, margin=128), [1, 1, 1, 1])
    np.testing.assert_array_equal(rewards("dot", solved), [1, 1, 1, 1])  # sqrt(3) < 3: K is too small
    np.testing.assert_array_equal(rewards("dot", [(100, True)] * 10 + [(500, True)]), [1] * 10 + [0])
    np.testing.assert_array_equal(rewards("dot", [*solved[:3], (500, False)], cut=0.0), [1, 1, 1, 0])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "o1_pruner"])
@pytest.mark.parametrize("pairs", [[(7, False)] * 3, [(7, True)] * 3, [(0, True)], [(0, False), (0, True), (9, True)]])
def test_nothing_right_all_alike_one_sample_and_empty_ones_stay_finite(name, pairs):
    got = rewards(name, pairs)
    assert np.isfinite(got).all() and got.dtype == np.float64
    assert np.isfinite(weights(name, pairs, kept=[] if METHODS[name].Params.UNIT == 2 else None)).all()
    one = [(max(length, 1), right) for length, right in pairs]
    np.testing.assert_array_equal(got, rewards(name, one))  # an empty completion counts as one token


def test_tlmre_takes_the_mean_of_the_others():
    # 4/3 (R - mean), mean .675948
    np.testing.assert_allclose(weights("tlmre", GOLDEN), [0.363914, 0.316449, -0.901264, 0.220901], atol=1e-6)


def test_grpo_lead_weighs_by_difficulty():
    # z-scores .638495, .590717, -1.729930, .500718 (mean .500932, std .867626); w(3/4) = .4 + 1.1 / 2 = .95 for the
    # positive ones, w(1/4) = .4 + 1.1 / (1 + exp(-5)) = 1.492638 for the negative one
    np.testing.assert_allclose(weights("grpo_lead", GOLDEN), [0.606570, 0.561181, -2.582159, 0.475682], atol=1e-6)


def test_dler_divides_by_the_deviation_over_the_problems_that_are_trained_on():
    # R - mean: 3/4, -1/4 x 3 with the limit 100 and -1/4, -1/4, 3/4, -1/4; mean square 3/16. The third problem's
    # rewards are all 0: it is not trained on, and does not count.
    root = np.sqrt(3 / 16)
    got = weights("dler", GOLDEN, HARD, [(5, False)] * 9, kept=range(8), limit=100)
    np.testing.assert_allclose(got[:8] * root, [0.75, -0.25, -0.25, -0.25, -0.25, -0.25, 0.75, -0.25])
    assert choose("dler", [(5, False)] * 9) == [] and choose("dler", [(5, True)] * 9) == []
    assert choose("dler", [(5, True), (5000, True)], m=1) == [[0]]  # the second is too long to be right


def test_gfpo_compares_only_what_it_keeps():
    assert choose("gfpo", GOLDEN, m=2) == []  # the two shortest are both right
    assert choose("gfpo", GOLDEN, m=3) == [[0], [1], [2]]
    assert choose("gfpo", GOLDEN, usable={1, 2, 3}, m=2) == [[1], [2]]
    efficient = [(100, False), (400, True), (200, True), (50, False)]
    assert choose("gfpo", efficient, m=3, best="efficient", lots=[3, 2, 1, 0]) == [[2], [1], [3]]
    # mean 2/3 and std .471405 of 1, 1, 0
    np.testing.assert_allclose(weights("gfpo", GOLDEN, kept=[0, 1, 2])[:3], [0.707107, 0.707107, -1.414214], atol=1e-6)


def test_gdpo_normalises_each_reward_by_itself():
    # correctness: .577350 x 3 and -1.732051; length within 200 and right: 1, 1, -1, -1; the sums 1.577350 twice,
    # -2.732051 and -.422650 have mean 0 and std 1.776148
    expected = [0.888074, 0.888074, -1.538189, -0.237959]
    np.testing.assert_allclose(weights("gdpo", GOLDEN, limit=200), expected, atol=1e-6)
    assert choose("gdpo", [(5, True), (9, False)], limit=7, conditioned=False, m=2) == [[0], [1]]
    # right and too long, wrong and short: sums are equal, the rewards are not
    assert choose("gdpo", [(9, True), (5, False)], limit=7, conditioned=False, m=2) == [[0], [1]]


def test_luspo_weighs_by_length():
    # z-scores .577350 and -1.732051, times 100, 200, 300 and 400 over 250
    np.testing.assert_allclose(weights("luspo", GOLDEN), [0.230940, 0.461880, -2.078461, 0.923760], atol=1e-6)


def test_sft_takes_the_shortest_right_ones():
    assert choose("sft_shortest", GOLDEN) == [[0], [1]]
    assert choose("sft_shortest", GOLDEN, usable={1, 2, 3}) == [[1], [3]]
    assert choose("sft_shortest", [(5, True)] * 3, lots=[2, 0, 1]) == [[1], [2]]
    assert choose("sft_shortest", [(5, False)] * 3) == []
    np.testing.assert_allclose(weights("sft_shortest", GOLDEN, kept=[0, 1])[:2], [1 / 150, 1 / 150])
    np.testing.assert_allclose(weights("sft_shortest", GOLDEN, kept=[0, 1], alike="sequence")[:2], [1 / 100, 1 / 200])


def test_dpo_pairs_the_shortest_right_ones_with_the_longest():
    assert choose("dpo_shortest", GOLDEN) == [[0, 3], [1, 3]]
    assert choose("dpo_shortest", GOLDEN, m=1) == [[0, 3]]
    assert choose("dpo_shortest", GOLDEN, usable={0, 1, 2}) == [[0, 2], [1, 2]]  # the longest is wrong
    assert choose("dpo_shortest", [(5, True), (5, True)]) == [] == choose("dpo_shortest", [(5, False), (9, False)])
    np.testing.assert_array_equal(weights("dpo_shortest", GOLDEN, kept=[[0, 3], [1, 3]]), [1, 1, 0, -2])


def test_dast_pairs_right_with_right_and_wrong_with_wrong():
    assert choose("dast", GOLDEN) == [[0, 3]]
    # nothing is right: the budget is the longest sample's length; -.775 and -.1
    assert choose("dast", [(100, False), (400, False)]) == [[1, 0]]
    assert choose("dast", [(100, False), (400, False)], margin=0.68) == []
    both = [(100, True), (300, True), (10, False), (400, False)]
    # budget 300: the right ones .833333 and .5; d of the wrong ones -.966667 and .333333: -.97 and -.1
    assert choose("dast", both) == [[3, 2], [0, 1]]
    assert choose("dast", both, m=1) == [[3, 2]]


@pytest.mark.parametrize("name", [name for name in METHODS if hasattr(METHODS[name].Params, "NORMALIZE")])
def test_equal_rewards_teach_nothing_and_samples_cut_off_may_be_dropped(name):
    assert choose(name, [(9, False)] * 4) == []
    pairs, params = [(1, True), (2, False), (3, True), (90, True)], {"m": 4}
    if name == "dot":
        assert choose(name, [(9, True)] * 3) == []
    kept = choose(name, pairs, cut={1}, truncated="drop", **params)
    assert all(unit != [1] for unit in kept)
    if name != "gfpo":  # whose kept samples are then all right
        assert kept == [[0], [2], [3]]
        assert choose(name, pairs, lots=[3, 2, 1, 0], m=2) == [[3], [2]]
        assert choose(name, [(9, False)] * 4, normalize="none", m=1) == [[0]]
