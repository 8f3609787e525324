import pytest
from made_rollouts import rollouts, row
from matplotlib.figure import Figure

from o1p_jax.evaluation import why
from o1p_jax.evaluation.effort import with_passes
from o1p_jax.evaluation.plots import plot
from o1p_jax.evaluation.summary import Graded, compare
from o1p_jax.grading.passes import KINDS

CHECK = "Wait, check: = 4.\n"
ANSWER = "The answer is 4.\n"


def results(checks=(3, 1)):
    """Models that check their right answer so many times, on two problems of two levels; a token is a character."""
    runs = []
    for model, n in enumerate(checks):
        text = ANSWER + n * CHECK
        rows = [row(f"p{i}", len(text), "correct", text=text, level=str(i)) for i in range(2)]
        runs.append(Graded(f"m{model}", "set", with_passes(rollouts(rows), lambda ids: [1] * len(ids))))
    return compare(runs, resamples=20)


def test_the_tables_by_hand():
    found = why.tables(results())
    assert found == {
        why.SPENT: [
            ["method", *why.NAMES.values(), "not cut %"],
            ["m0", "17.0", "0.0", "0.0", "18.0", "36.0", "0.0", "0.0"],
            ["m1", "17.0", "0.0", "0.0", "18.0", "0.0", "0.0", "0.0"],
        ],
        why.REMOVED: [
            ["method", *why.NAMES.values()],
            ["m0", "", "", "", "", "", ""],
            ["m1", *["+0.0 [+0.0,+0.0]"] * 4, "-36.0 [-36.0,-36.0]", "+0.0 [+0.0,+0.0]"],
        ],
        why.DIFFICULTY: [
            ["method", "base right in 75-100% (2 problems)", "rank correlation"],
            ["m0", "71", "n/a"],
            ["m1", "35", "n/a"],
        ],
    }


def test_one_model_has_no_table_of_what_was_removed():
    assert list(why.columns(results()[:1])) == [why.SPENT]


def test_every_kind_has_a_name_and_a_colour():
    assert tuple(why.NAMES) == KINDS


@pytest.mark.parametrize("models", [1, 2, 12])
def test_the_bars_are_as_long_as_the_solutions(monkeypatch, models):
    drawn = []
    monkeypatch.setattr(why, "plot", lambda draw, alt, height: drawn.append((draw, alt)) or plot(draw, alt, height))
    found = results(range(models))
    why.spent_plot(found)
    [(draw, alt)] = drawn
    axes = Figure().subplots()
    draw(axes, "light")
    ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in zip(*axes.containers, strict=True)]
    assert ends == [result.overall.tokens.value for result in found]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [result.model for result in found]
    assert alt.count(";") == models - 1 and "m0 17 first pass, 0 check: to right" in alt
