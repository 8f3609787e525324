"""Tables and a plot say why a method works: what tokens are spent on, what was removed, and what hard problems get."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from o1p_jax.evaluation.effort import Effort
from o1p_jax.evaluation.plots import DARK, LIGHT, Plot, plot, short
from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Result, Summary
from o1p_jax.evaluation.table import Column
from o1p_jax.grading.passes import AFTER, FIRST, REPEATED, TO_RIGHT, TO_WRONG, UNCHANGED

NAMES = {
    FIRST: "first pass",
    TO_RIGHT: "check: to right",
    TO_WRONG: "check: to wrong",
    UNCHANGED: "check: no change",
    REPEATED: "repeated",
    AFTER: "after the thought",
}
"""The kinds of passes, as headings."""
LEGEND = (
    "First pass: the tokens up to the first answer, and on to where the text turns back. A check goes from there to "
    "the next answer, which is another one and right, another one and wrong, or no other. Repeated: in the words of an "
    "earlier stretch. Not cut: no answer is recognised, so that all is first pass. Rank correlation: above 0, the "
    "problems that the base seldom solves get more tokens"
)
"""What the tables' columns are."""
SPENT, REMOVED, DIFFICULTY = "mean tokens by what they are spent on", "change of these tokens", "tokens by difficulty"
"""The tables' titles."""
_COLORS = {
    LIGHT: ("#2563eb", "#0f7b5f", "#b3261e", "#e0a526", "#c2570c", "#9aa3af"),
    DARK: ("#6ea8fe", "#45c9a0", "#ff9a90", "#f2cf6a", "#f2a65a", "#727c89"),
}
"""The colours of the kinds, in the order of `NAMES`."""


def is_known(results: Sequence[Result]) -> bool:
    """Returns whether the solutions behind these results of one problem set were cut into passes."""
    return all(result.overall.effort for result in results)


def columns(results: Sequence[Result]) -> dict[str, list[Column]]:
    """Returns the columns of the tables of what tokens are spent on and of what was removed, by title."""
    spent: list[Column] = [(name, partial(_spent, kind)) for kind, name in NAMES.items()]
    found = {SPENT: [*spent, ("not cut %", _unanswered)]}
    if len(results) > 1:
        found[REMOVED] = [(name, partial(_removed, kind)) for kind, name in NAMES.items()]
    return found


def tables(results: Sequence[Result]) -> dict[str, list[list[str]]]:
    """Returns the tables over all problems of one set, by title: lines with a cell a column, the headings first."""
    lines = {
        title: [
            ["method", *(heading for heading, _ in shown)],
            *([result.model, *(cell(result.overall) for _, cell in shown)] for result in results),
        ]
        for title, shown in columns(results).items()
    }
    return {**lines, DIFFICULTY: table_of_difficulty(results)}


def table_of_difficulty(results: Sequence[Result]) -> list[list[str]]:
    """Returns the lines of a table of tokens by how often the base is right on a problem, the headings first."""
    base = _effort(results[0])
    headings = [
        f"base right in {name} ({of.problems:,} problem{'s' * (of.problems != 1)})"
        for name, of in base.by_accuracy.items()
    ]
    lines = [["method", *headings, "rank correlation"]]
    for result in results:
        effort = _effort(result)
        cells = [f"{of.tokens:,.0f}" for of in effort.by_accuracy.values()]
        lines.append([result.model, *cells, _figure(effort.follows_difficulty, "z.2f")])
    return lines


def spent_plot(results: Sequence[Result]) -> Plot:
    """Draws what each model's tokens are spent on, as a bar in stretches, for one problem set."""
    efforts = [_effort(result) for result in results]

    def draw(ax: Axes, scheme: str) -> None:
        left = np.zeros(len(efforts))
        for (kind, name), color in zip(NAMES.items(), _COLORS[scheme], strict=True):
            tokens = np.array([effort.tokens[kind] for effort in efforts])
            ax.barh(range(len(efforts)), tokens, left=left, color=color, height=0.7, label=name)
            left += tokens
        ax.set_yticks(range(len(efforts)), [short(result.model) for result in results])
        ax.set_ylim(len(efforts) - 0.4, -0.6)
        ax.set_xlabel("mean tokens of a solution")
        ax.grid(False, axis="y")
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)

    spoken = "; ".join(
        f"{result.model} " + ", ".join(f"{effort.tokens[kind]:.0f} {name}" for kind, name in NAMES.items())
        for result, effort in zip(results, efforts, strict=True)
    )
    return plot(draw, f"What the tokens are spent on: {spoken}.", height=1.6 + 0.3 * len(results))


def _spent(kind: str, summary: Summary) -> str:
    return f"{summary.effort.tokens[kind]:,.1f}" if summary.effort else ""


def _removed(kind: str, summary: Summary) -> str:
    return _figure(summary.effort.change[kind], "+z.1f") if summary.effort and summary.effort.change else ""


def _unanswered(summary: Summary) -> str:
    return f"{100 * summary.effort.unanswered:.1f}" if summary.effort else ""


def _effort(result: Result) -> Effort:
    assert result.overall.effort, "the caller asks `is_known` first"
    return result.overall.effort


def _figure(interval: Interval, form: str) -> str:
    """An interval as '+3.1 [+2.0,+4.2]', each number by the format `form`; 'n/a' where the figure is not defined."""
    if not np.isfinite(interval.value):
        return "n/a"
    value, low, high = (format(x, form) for x in interval)
    return f"{value} [{low},{high}]"
