"""Several methods in one picture: which of them no other one beats in accuracy and tokens alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from o1p_jax.evaluation.plots import Plot, color, name_points, plot
from o1p_jax.evaluation.summary import Result


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the numbers of the (tokens, accuracy) points that no other one beats, from the fewest tokens on.

    A point is beaten by one with at most its tokens and at least its accuracy that is better in one of them.
    """

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    unbeaten = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    return sorted(unbeaten, key=points.__getitem__)


def pareto_plot(results: Sequence[Result]) -> Plot:
    """Draws all models of one problem set with their intervals; a line joins those that no other one beats."""
    points = [point_of(result) for result in results]
    best = front(points)

    def draw(ax: Axes, scheme: str) -> None:
        ax.plot(*zip(*[points[i] for i in best], strict=True), "-", color=color(1, scheme), linewidth=1, zorder=1)
        for i, (result, (x, y)) in enumerate(zip(results, points, strict=True)):
            style: Any = {"color": color(0 if i == 0 else 1 if i in best else 2, scheme), "clip_on": False}
            tokens, accuracy = result.overall.tokens, result.overall.accuracy
            ax.plot([tokens.low, tokens.high], [y, y], linewidth=0.8, alpha=0.6, **style)
            ax.plot([x, x], [100 * accuracy.low, 100 * accuracy.high], linewidth=0.8, alpha=0.6, **style)
            ax.plot(x, y, "o", markersize=6, zorder=3, **style)
        _label(ax)
        name_points(ax, {r.model: point for r, point in zip(results, points, strict=True)}, scheme)

    names = ", ".join(results[i].model for i in best)
    return plot(draw, f"Accuracy against mean tokens of {len(results)} models; no other one beats {names}.", height=5.0)


def sweep_plot(sweeps: Mapping[str, Mapping[str, tuple[float, float]]]) -> Plot:
    """Draws, for each family of variants, (tokens, accuracy) of its values: {family: {value: point}}."""

    def draw(ax: Axes, scheme: str) -> None:
        names: dict[str, tuple[float, float]] = {}
        for i, (family, of_values) in enumerate(sweeps.items(), 1):
            ax.plot(*zip(*of_values.values(), strict=True), "o-", color=color(i, scheme), markersize=5, linewidth=1)
            names |= {f"{family} {value}": point for value, point in of_values.items()}
        _label(ax)
        name_points(ax, names, scheme)

    return plot(draw, "Accuracy against mean tokens on the validation problems, a line for each family of variants.")


def point_of(result: Result) -> tuple[float, float]:
    """Returns a model's mean tokens, and its accuracy in percent."""
    return result.overall.tokens.value, 100 * result.overall.accuracy.value


def _label(ax: Axes) -> None:
    ax.set_xlabel("mean tokens of a solution (left is shorter)")
    ax.set_ylabel("accuracy %")
    ax.margins(0.12)
