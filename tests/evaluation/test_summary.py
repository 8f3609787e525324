import math

import numpy as np
import pyarrow as pa
import pytest
from made_rollouts import rollouts, row, simple

from o1p_jax.evaluation.summary import Graded, compare, fates, summarize
from o1p_jax.runtime.errors import BadInput


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


def test_pass_at_is_reported_up_to_the_samples_every_problem_has():
    counts = {"a": 6, "b": 7}
    table = rollouts([row(p, 5, "wrong", sample=s) for p, n in counts.items() for s in range(n)])
    assert list(summarize(table).pass_at) == [1, 2, 4, 6]


def test_outcome_efficiency_is_over_correct_samples():
    half = r"xx\boxed{4}" + "y" * 11
    table = rollouts(
        [row("a", 5, "correct", text=half), row("b", 5, "correct", text="it is four"), row("c", 5, "wrong", text=half)]
    )
    assert summarize(table).outcome_efficiency == pytest.approx((0.5 + 1) / 2)


def test_within_a_budget_counts_what_is_right_and_no_longer():
    table = rollouts([
        row("a", 100, "correct", sample=0), row("a", 200, "correct", sample=1), row("a", 50, "wrong", sample=2),
        row("b", 101, "correct"),
    ])  # fmt: skip
    summary = summarize(table, budgets=(100, 200))
    assert {budget: at.value for budget, at in summary.at_budget.items()} == pytest.approx({100: 1 / 6, 200: 5 / 6})
    assert summary.at_budget[200] == summary.accuracy
    assert summary.budget_area.value == pytest.approx((1 / 3 + math.log2(200 / 101)) / 2)
    assert summary.budget_area.low <= summary.budget_area.value <= summary.budget_area.high
    assert summarize(table).at_budget == {} and summarize(table).budget_area is None


def test_tokens_of_thought_and_of_what_follows_add_up():
    table = rollouts(
        [
            row("a", 100, "correct", thought=80),
            row("a", 60, "wrong", sample=1),  # no thought
            row("b", 10, "wrong", thought=10),
        ]
    )
    summary = summarize(table)
    assert (summary.tokens_thought, summary.tokens_after) == ((40 + 10) / 2, (40 + 0) / 2)
    assert summary.tokens_thought + summary.tokens_after == summary.tokens.value
    without = summarize(simple([5, 7], "cw"))
    assert without.tokens_thought is None and without.tokens_after is None


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


def test_levels_are_in_natural_order_however_long_their_numbers_are():
    levels = ["1" * 5000, "level 10", "2", "level 9", "10", "-", "010"]
    table = rollouts([row(f"p{i}", 1, "correct", level=level) for i, level in enumerate(levels)])
    found = list(compare([Graded("base", "one", table)], resamples=5)[0].levels)
    assert [level for level in found if level.isdecimal()] == ["2", "010", "10", "1" * 5000]
    assert found.index("level 9") < found.index("level 10")


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


def test_rollouts_may_lack_the_tokens_of_thoughts():
    rows = simple([10, 20], "cw")
    [whole], [lacking] = (
        compare([Graded("m", "set", r)], resamples=10) for r in (rows, rows.drop_columns("thought_tokens"))
    )
    assert lacking == whole and lacking.overall.tokens_thought is None
