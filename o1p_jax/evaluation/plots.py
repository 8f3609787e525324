"""The report's figures, drawn without a display: SVG as data URIs, one for a light page and one for a dark one."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from o1p_jax.evaluation.summary import Result, Summary

LIGHT, DARK = "light", "dark"
_HEIGHT = 3.6
_SIDES = [
    (x * far, y * far, aligned)
    for far in (5, 10, 16)
    for x, y, aligned in (
        (-1, 0.4, "right"), (1, 0.4, "left"), (0, 1.2, "center"),
        (-1, -1, "right"), (1, -1, "left"), (0, -1.4, "center"),
    )
]  # fmt: skip
"""Where a point's name may stand, in points of print from the point, and how the name is aligned there."""
_INK = {LIGHT: "#3f4753", DARK: "#b6bfcc"}
_GRID = {LIGHT: "#e3e7ec", DARK: "#2c333d"}
_MODELS = {  # the base first; the last colour serves all further models
    LIGHT: ("#7a828e", "#2563eb", "#c2570c", "#0f7b5f", "#8b3fd1"),
    DARK: ("#98a2b0", "#6ea8fe", "#f2a65a", "#45c9a0", "#c79bff"),
}


class Plot(NamedTuple):
    """One figure for both colour schemes."""

    light: str
    """The figure for a light page, as a data: URI."""
    dark: str
    """The figure for a dark page, as a data: URI."""
    alt: str
    """What the figure shows, for those who can't see it."""


def color(index: int, scheme: str) -> str:
    """Returns the colour of a problem set's model number `index`; the page's text uses the same colour."""
    return _MODELS[scheme][min(index, len(_MODELS[scheme]) - 1)]


def accuracy_against_tokens(results: Sequence[Result]) -> Plot:
    """Draws all models on one problem set.

    The whole set is large, with its intervals; each level is small, with its name at the last model's dot where there
    is room for the name; arrows lead from the base to the other models.
    """

    def draw(ax: Axes, scheme: str) -> None:
        base = results[0]
        names: dict[str, tuple[float, float]] = {}
        for level in base.levels if len(base.levels) > 1 else ():
            before = point = _point(base.levels[level])
            for i, result in enumerate(results):
                point = _point(result.levels[level])
                ax.plot(*point, "o", color=color(i, scheme), markersize=4, alpha=0.7, markeredgewidth=0, clip_on=False)
                if i:
                    _arrow(ax, before, point, color(i, scheme), width=0.8, alpha=0.5)
            names[level] = point
        for i, result in enumerate(results):
            summary = result.overall
            x, y = _point(summary)
            style: Any = {"color": color(i, scheme), "zorder": 3, "clip_on": False}
            tokens, accuracy = summary.tokens, summary.accuracy
            ax.plot([tokens.low, tokens.high], [y, y], marker="|", **style)
            ax.plot([x, x], [100 * accuracy.low, 100 * accuracy.high], marker="_", **style)
            ax.plot(x, y, "o", markersize=9, **style)
            if i:
                _arrow(ax, _point(base.overall), (x, y), color(i, scheme), width=1.8, alpha=0.9)
        ax.set_xlabel("mean tokens of a solution (left is shorter)")
        ax.set_ylabel("accuracy %")
        ax.margins(0.1)
        ax.set_xlim(0, 1.05 * ax.dataLim.x1)
        low, high = ax.get_ylim()
        ax.set_ylim(max(min(low, high - 5), 0), min(max(high, low + 5), 100))
        name_points(ax, names, scheme)

    return plot(draw, "Accuracy against mean tokens: " + _spoken(results))


def accuracy_at_budgets(results: Sequence[Result]) -> Plot:
    """Draws the accuracy at each token budget, a line a model, with intervals; the budgets on a logarithmic axis."""

    def draw(ax: Axes, scheme: str) -> None:
        budgets = list(results[0].overall.at_budget)
        for i, result in enumerate(results):
            at = [[100 * x for x in interval] for interval in result.overall.at_budget.values()]
            values, low, high = zip(*at, strict=True)
            ax.vlines(budgets, low, high, color=color(i, scheme), alpha=0.6)
            ax.plot(budgets, values, "o-", color=color(i, scheme), markersize=6, zorder=3, clip_on=False)
        ax.set_xscale("log", base=2)
        ax.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        ax.minorticks_off()
        ax.set_ylim(0, min(100, 5 + 1.1 * ax.dataLim.y1))
        ax.set_xlabel("token budget of a solution")
        ax.set_ylabel("right within the budget, %")

    return plot(draw, "Accuracy at token budgets: " + "; ".join(f"{r.model} {_within(r)}" for r in results))


def tokens_by_level(results: Sequence[Result]) -> Plot:
    """Draws the mean tokens at each level, a dot a model: where the tokens went."""

    def draw(ax: Axes, scheme: str) -> None:
        levels = list(results[0].levels)
        for y, level in enumerate(levels):
            tokens = [result.levels[level].tokens.value for result in results]
            ax.plot([min(tokens), max(tokens)], [y, y], color=_GRID[scheme], linewidth=5, solid_capstyle="round")
            for i, x in enumerate(tokens):
                ax.plot(x, y, "o", color=color(i, scheme), markersize=8, zorder=3)
        ax.set_yticks(range(len(levels)), [short(level) for level in levels])
        ax.set_ylim(len(levels) - 0.4, -0.6)
        ax.set_xlim(0, 1.05 * ax.dataLim.x1)
        ax.set_ylabel("level")
        ax.set_xlabel("mean tokens of a solution")

    return plot(draw, "Mean tokens by level.", height=max(_HEIGHT, 1 + 0.2 * len(results[0].levels)))


def plot(draw: Callable[[Axes, str], None], alt: str, height: float = _HEIGHT) -> Plot:
    """Runs `draw(axes, scheme)` for both colour schemes; `height` is in inches."""
    uris = {}
    for scheme in (LIGHT, DARK):
        style: Any = {
            "text.parse_math": False,  # names come from outside; a '$' in one is a dollar
            "svg.fonttype": "none",
            "svg.hashsalt": "o1p_jax",
            "font.size": 9,
            "text.color": _INK[scheme],
            "axes.labelcolor": _INK[scheme],
            "axes.edgecolor": _GRID[scheme],
            "xtick.color": _INK[scheme],
            "ytick.color": _INK[scheme],
            "grid.color": _GRID[scheme],
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(4.9, height), layout="constrained")
            axes = figure.subplots()
            axes.grid(True, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            draw(axes, scheme)
            svg = io.BytesIO()
            figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        uris[scheme] = "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
    return Plot(**uris, alt=alt)


def _point(summary: Summary) -> tuple[float, float]:
    """A summary's place in the plot: (mean tokens, accuracy in percent)."""
    return summary.tokens.value, 100 * summary.accuracy.value


def _arrow(ax: Axes, start, end, color: str, *, width: float, alpha: float) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": width, "alpha": alpha, "shrinkA": 5, "shrinkB": 5}
    ax.annotate("", end, start, arrowprops=style, zorder=2)


def name_points(ax: Axes, names: Mapping[str, tuple[float, float]], scheme: str) -> None:
    """Writes each name beside its point, where it lies over no point, interval or other name, or not at all."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout decides where the points are
    taken = [drawn.get_window_extent().padded(1) for drawn in ax.lines]
    for name, point in names.items():
        for x, y, aligned in _SIDES:
            text = ax.annotate(
                short(name),
                point,
                (x, y),
                textcoords="offset points",
                ha=aligned,
                va="center",
                color=_INK[scheme],
                fontsize=8,
            )
            box = text.get_window_extent()
            inside = ax.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and ax.bbox.y0 <= box.y0
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def short(name: str) -> str:
    """Returns a name, cut in its middle to 28 characters."""
    return name if len(name) <= 28 else name[:13] + "…" + name[-14:]


def _within(result: Result) -> str:
    """A model's accuracy at each budget, in words."""
    return ", ".join(f"{100 * at.value:.1f}% within {budget}" for budget, at in result.overall.at_budget.items())


def _spoken(results: Sequence[Result]) -> str:
    """The results as a sentence."""
    return "; ".join(
        f"{r.model} {100 * r.overall.accuracy.value:.1f}% at {r.overall.tokens.value:.0f} tokens" for r in results
    )
