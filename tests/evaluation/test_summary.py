import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from made_rollouts import rollouts, row, simple

from o1p_jax.evaluation.scores import aes, bootstrap_means, pass_at_k
from o1p_jax.evaluation.summary import Graded, compare, fates, summarize
from o1p_jax.grading.extract import first_answer
from o1p_jax.runtime.errors import BadInput

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


def test_means_are_over_problems_of_the_mean_over_samples():
    table = rollouts([
        row("a", 100, "correct", sample=0), row("a", 200, "wrong", sample=1), row("a", 600, "wrong", sample=2),
        row("b", 10, "correct"),
    ])  # fmt: skip
    summary = summarize(table)
    assert (summary.problems, summary.samples) == (2, 4)
    assert summary.accuracy.value == pytest.approx((1 / 3 + 1) / 2)
    assert summary.tokens.value == pytest.approx((300 + 10) / 2)
    assert (summary.tokens_correct, summary.tokens_wrong) == (55, 400)
    assert list(summary.pass_at) == [1]
    assert summary.change is None


def test_what_the_grader_could_not_decide_is_told_apart_from_wrong():
    table = rollouts(
        [
            row("a", 5, "timeout"),
            row("b", 9, "unparsed", finish="length"),
            row("c", 5, "bad_gold"),
            row("d", 5, "wrong"),
        ]
    )
    summary = summarize(table)
    assert summary.grades == {"timeout": 1, "unparsed": 1, "bad_gold": 1, "wrong": 1}
    assert summary.accuracy == (0, 0, 0)
    assert summary.truncated == 0.25
    assert summary.tokens_correct is None and summary.outcome_efficiency is None


def test_the_order_of_the_rows_means_nothing():
    rows = [
        row(f"p{i}", 10 + 7 * i, "correct" if i % 3 else "wrong", sample=s, level=str(i % 2))
        for i in range(9)
        for s in range(2)
    ]
    base = rollouts(rows[::-1])
    new = [r | {"completion_ids": r["completion_ids"][::2]} for r in rows]
    shuffled = [new[i] for i in np.random.default_rng(0).permutation(len(new))]
    assert summarize(rollouts(new), base) == summarize(rollouts(shuffled), rollouts(rows))


def test_a_lost_sample_does_not_shift_the_others():
    base = simple([100, 200, 300], "ccw")
    new = rollouts(
        [
            row("p2", 150, "wrong"),
            row("p0", 50, "correct"),
            row("p0", 50, "correct", sample=1),
            row("p1", 100, "correct"),
        ]
    )
    change = summarize(new, base).change
    assert change.tokens == pytest.approx((-0.5, -0.5, -0.5))
    assert change.accuracy == (0, 0, 0)


def test_a_model_against_itself_has_changed_by_exactly_nothing():
    """Fails as soon as a model and its base see different resamples."""
    table = simple(list(range(10, 60)), "cw" * 25)
    change = summarize(table, table).change
    assert change.accuracy == change.tokens == change.aes == (0, 0, 0)


def test_change_and_fates():
    change = summarize(simple([50, 50, 50, 50], "ccww"), simple([100, 100, 50, 150], "cwcw")).change
    assert change.tokens.value == pytest.approx(-0.5)
    assert change.accuracy.value == 0
    assert change.aes.value == pytest.approx(0.5)
    assert change.fates == {"kept": 1, "gained": 1, "lost": 1, "neither": 1}


def test_fates_are_those_of_the_first_sample():
    base = rollouts([row("a", 1, "wrong", sample=1), row("a", 1, "correct", sample=0)])
    new = rollouts([row("a", 1, "correct", sample=1), row("a", 1, "wrong", sample=0)])
    assert fates(base, new) == {"a": "lost"}


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


def test_pass_at_is_reported_up_to_the_samples_every_problem_has():
    counts = {"a": 6, "b": 7}
    table = rollouts([row(p, 5, "wrong", sample=s) for p, n in counts.items() for s in range(n)])
    assert list(summarize(table).pass_at) == [1, 2, 4, 6]


@pytest.mark.parametrize(("text", "gold", "upto"), [
    (r"So \boxed{4}. Wait, again: \boxed{4}.", "4", r"So \boxed{4}"),
    (r"It is \boxed{5}. No, \boxed{4}.", "4", r"It is \boxed{5}. No, \boxed{4}"),
    ("2 + 2 = 4. Let me check: 4 - 2 = 2.", "4", "2 + 2 = 4"),
    ("1 = 12 + 3 - 14, so 12", "1", None),
    ("x = 12 + 30 = 42", "12", None),
    ("My first guess is 33. Try 33", "33", "My first guess is 33"),
    ("The answer is 1,234.", "1234", "The answer is 1,234"),
    (r"the answer is $\boxed{\frac{1}{2}}$", r"\frac{1}{2}", r"the answer is $\boxed{\frac{1}{2}}"),
    ("some reasoning\n#### 18", "18", "some reasoning\n#### 18"),
    ("we have 4 apples", "4", None),
    ("", "4", None),
])  # fmt: skip
def test_where_the_first_correct_answer_stands(text, gold, upto):
    end = first_answer(text, gold)
    assert (None if end is None else text[:end]) == upto


def test_outcome_efficiency_is_over_correct_samples():
    half = r"xx\boxed{4}" + "y" * 11
    table = rollouts(
        [row("a", 5, "correct", text=half), row("b", 5, "correct", text="it is four"), row("c", 5, "wrong", text=half)]
    )
    assert summarize(table).outcome_efficiency == pytest.approx((0.5 + 1) / 2)


def test_compare_takes_the_first_model_of_each_problem_set_as_base():
    levels = ["10", "9", "2"]
    base, new = (rollouts([row(f"p{i}", n, "correct", level=level) for i, level in enumerate(levels)]) for n in (10, 4))
    other = simple([8], "w")
    results = compare(
        [
            Graded("base", "one", base),
            Graded("base", "two", other),
            Graded("new", "one", new),
            Graded("new", "two", other),
        ],
        resamples=50,
    )
    assert [(r.model, r.problem_set, r.overall.change is None) for r in results] == [
        ("base", "one", True),
        ("base", "two", True),
        ("new", "one", False),
        ("new", "two", False),
    ]
    assert list(results[0].levels) == ["2", "9", "10"]
    assert results[2].levels["9"].change.tokens.value == pytest.approx(-0.6)
    assert math.isnan(results[3].overall.change.aes.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rollouts([]), "no rollouts"),
        (rollouts([row("p0", 1, "correct") | {"grade": None}]), "1 rollouts have no grade"),
        (simple([1], "c", level="7"), "the same problem set"),
        (simple([1, 1], "cc"), "1 problems that base lacks, 0 missing"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(table: pa.Table, message):
    with pytest.raises(BadInput, match=message) as caught:
        compare([Graded("base", "set", simple([1], "c")), Graded("new", "set", table)], resamples=10)
    assert "\n" not in str(caught.value) and "new on set" in str(caught.value)
