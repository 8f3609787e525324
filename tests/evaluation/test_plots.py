"""The report's figures: what a reader could take for wrong, or could not read."""

import itertools

import pytest
from made_rollouts import rollouts, row

from o1p_jax.evaluation import plots
from o1p_jax.evaluation.summary import Graded, Result, compare


def results(levels: list[str], share: float, models: int = 2) -> list[Result]:
    """Models that answer this share of each level's eight problems right, all levels much alike."""
    runs = []
    for model in range(models):
        rows = [
            row(f"{level}/{i}", 100 - 20 * model + at % 3, "correct" if i < 8 * share else "wrong", level=level)
            for at, level in enumerate(levels)
            for i in range(8)
        ]
        runs.append(Graded(f"m{model}", "set", rollouts(rows)))
    return compare(runs, budgets=(60, 80, 120), resamples=20)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, laid out as they are printed."""
    made = []

    class Kept(plots.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(plots, "Figure", Kept)
    return made


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_accuracy_axis_shows_what_an_accuracy_can_be(drawn, share):
    plots.accuracy_against_tokens(results(["1", "2"], share))
    for figure in drawn:
        low, high = figure.axes[0].get_ylim()
        assert 0 <= low <= 100 * share <= high <= 100 and high - low > 4
        assert figure.axes[0].get_xlim()[0] == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_budget_is_a_mark_of_each_model(drawn, share):
    plot = plots.accuracy_at_budgets(results(["1", "2"], share))
    assert plot.alt.endswith(f"m1 0.0% within 60, {50 * share:.1f}% within 80, {100 * share:.1f}% within 120")
    for figure in drawn:
        figure.draw_without_rendering()
        [axes] = figure.axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["60", "80", "120"]
        for line in axes.lines:
            assert list(line.get_xdata()) == [60, 80, 120] and list(line.get_ydata())[-1] == 100 * share
        low, high = axes.get_ylim()
        assert low == 0 and high >= 100 * share


def test_names_lie_over_no_point_and_no_other_name(drawn):
    levels = [f"Level {i}" for i in range(1, 13)]
    plots.accuracy_against_tokens(results(levels, 0.5))
    for figure in drawn:
        figure.draw_without_rendering()
        [axes] = figure.axes
        names = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in names]
        assert {text.get_text() for text in names} <= set(levels) and len(names) >= 3
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        assert not [box for box in boxes if box.count_overlaps([line.get_window_extent() for line in axes.lines])]


def test_levels_stand_in_their_natural_order_however_many(drawn):
    levels = [str(i) for i in range(1, 41)]
    plots.tokens_by_level(results(levels[::-1], 0.5))
    for figure in drawn:
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_yticklabels()
        assert [tick.get_text() for tick in ticks] == levels
        heights = [tick.get_window_extent() for tick in ticks]
        assert not any(above.overlaps(below) for above, below in itertools.pairwise(heights))
