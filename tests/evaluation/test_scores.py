import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.evaluation.scores import aes, bootstrap_means, pass_at_k, rank_correlation, ranks, share_of_budgets

MARCO = {"MATH": (73.8, 1156), "GSM8K": (89.2, 530), "GaoKao": (57.1, 1112), "average": (73.4, 932)}


QWQ = {"MATH": (90.6, 2191), "GSM8K": (95.1, 777), "GaoKao": (79.0, 2183), "average": (88.2, 1717)}


@pytest.mark.parametrize(
    ("base", "accuracy", "tokens", "score"),
    [
        (MARCO["MATH"], 77.5, 657, 0.58),
        (MARCO["GSM8K"], 91.4, 343, 0.43),
        (MARCO["GaoKao"], 61.6, 664, 0.64),
        (MARCO["average"], 76.8, 554, 0.55),
        (QWQ["MATH"], 91.0, 1385, 0.38),
        (QWQ["GSM8K"], 96.5, 534, 0.36),
        (QWQ["GaoKao"], 80.3, 1446, 0.39),
        (QWQ["average"], 89.3, 1121, 0.38),
        (MARCO["average"], 74.8, 527, 0.49),
        (MARCO["average"], 76.0, 532, 0.54),
    ],
)
def test_aes_gives_the_papers_scores(base, accuracy, tokens, score):
    assert aes(*base, accuracy, tokens) == pytest.approx(score, abs=0.0055)


def test_aes_punishes_a_loss_of_accuracy_unless_as_printed():
    assert aes(0.8, 1000, 0.6, 500) == pytest.approx(0.5 - 5 * 0.25)
    assert aes(0.8, 1000, 0.6, 500, as_printed=True) == pytest.approx(0.5 + 3 * 0.25)


def test_aes_against_a_base_without_accuracy_or_tokens_is_not_a_number():
    assert np.isnan(aes([0.0, 0.0, 0.5], [100, 100, 0], [0.5, 0.0, 0.5], [50, 50, 50])).all()


def test_intervals_have_the_width_that_statistics_expects():
    share, problems = 0.3, 1000
    values = (np.arange(problems) < share * problems).astype(float)[:, None]
    means = bootstrap_means(values, resamples=4000, seed=0)
    assert means.shape == (4000, 1)
    assert means.mean() == pytest.approx(share, abs=0.002)
    assert means.std() == pytest.approx(math.sqrt(share * (1 - share) / problems), rel=0.05)


def test_resamples_depend_on_the_seed_alone():
    values = np.random.default_rng(1).normal(size=(50, 2))
    first, second = (bootstrap_means(values, 100, seed) for seed in (0, 1))
    assert (first == bootstrap_means(values, 100, 0)).all()
    assert (first != second).any()
    assert np.allclose(bootstrap_means(2 * values, 100, 0), 2 * first)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(k):
    samples = [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    expected = np.mean([np.mean([any(c) for c in itertools.combinations(s, k)]) for s in samples])
    assert pass_at_k(np.full(3, 5), np.array([2, 0, 5]), k) == pytest.approx(expected)


def test_the_share_of_budgets_is_the_area_under_the_curve_of_accuracy_against_their_logarithm():
    rng = np.random.default_rng(0)
    tokens, correct = rng.integers(1, 700, 200), rng.random(200) < 0.6
    budgets = np.exp(np.linspace(np.log(64), np.log(512), 200_001))
    curve = np.searchsorted(np.sort(tokens[correct]), budgets, side="right") / 200
    assert share_of_budgets(tokens, correct, 64, 512).mean() == pytest.approx(curve.mean(), abs=1e-5)


def test_a_sample_counts_from_its_own_length_on_and_every_halving_weighs_the_same():
    tokens = np.array([1, 64, 65, 128, 256, 512, 513, 64])
    correct = np.array([True] * 7 + [False])
    shares = share_of_budgets(tokens, correct, 64, 512)
    assert shares == pytest.approx([1, 1, 1 - math.log2(65 / 64) / 3, 2 / 3, 1 / 3, 0, 0, 0])
    assert share_of_budgets(tokens, correct, 64, 64).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


VALUES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20)  # many are equal


@given(VALUES)
def test_the_rank_correlation_is_spearmans(pairs):
    x_P, y_P = np.array(pairs, float).T
    np.testing.assert_array_equal(ranks(x_P), scipy.stats.rankdata(x_P))
    ours = rank_correlation(x_P, y_P, 10, 0)
    if np.ptp(x_P) == 0 or np.ptp(y_P) == 0:
        assert np.isnan(ours).all()
    else:
        assert ours.value == pytest.approx(scipy.stats.spearmanr(x_P, y_P).statistic)


def test_the_rank_correlations_interval_narrows_to_a_point_where_all_is_in_order():
    x_P = np.arange(30.0)
    assert rank_correlation(x_P, -(x_P**3), 100, 0) == pytest.approx((-1, -1, -1))
    noisy = rank_correlation(x_P, x_P + 20 * np.random.default_rng(0).normal(size=30), 1000, 0)
    assert -0.2 < noisy.low < noisy.value - 0.1 and noisy.value + 0.1 < noisy.high < 1
