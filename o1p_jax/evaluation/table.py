"""The before/after table: its cells are the same on the terminal, in Markdown and on the report's page."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Result, Summary

OVERALL = "all"
"""The level of the rows over all problems."""
Column = tuple[str, Callable[[Summary], str]]
"""A column's heading, and the function from a summary to the column's cell."""


def show(results: Sequence[Result]) -> None:
    """Prints the table of every problem set on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # room for every cell on one line; the table takes what it needs
    for problem_set, of_set in problem_sets(results).items():
        console.print(Text(f"{problem_set}: {caption(of_set)}", style="bold"))
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        shown = columns(of_set)
        table.add_column("level")
        table.add_column("model")
        for heading, _ in shown:
            table.add_column(heading, justify="right")
        for level, _, members in groups(of_set):
            for i, (model, summary) in enumerate(members):
                cells = [Text(level if i == 0 else ""), Text(model), *(Text(cell(summary)) for _, cell in shown)]
                table.add_row(*cells, end_section=i == len(members) - 1)
        console.print(table)


def markdown(results: Sequence[Result]) -> str:
    """Returns the tables of all problem sets as GitHub Markdown."""
    parts = []
    for problem_set, of_set in problem_sets(results).items():
        shown = columns(of_set)
        lines = [["level", "model", *(heading for heading, _ in shown)], ["---", "---", *["---:"] * len(shown)]]
        for level, _, members in groups(of_set):
            lines += [[level, model, *(cell(summary) for _, cell in shown)] for model, summary in members]
        rows = ["| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines]
        parts.append(f"{plain(f'{problem_set}: {caption(of_set)}')}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def problem_sets(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Returns the results by problem set, both in the order in which they came."""
    sets: dict[str, list[Result]] = {}
    for result in results:
        sets.setdefault(result.problem_set, []).append(result)
    return sets


def columns(results: Sequence[Result]) -> list[Column]:
    """Returns the columns that say something about these results of one problem set."""
    most = min(max(result.overall.pass_at) for result in results)
    chosen: list[Column] = [("accuracy %", lambda s: percent(s.accuracy))]
    if most > 1:
        chosen.append((f"pass@{most} %", lambda s: f"{100 * s.pass_at[most]:.1f}" if most in s.pass_at else ""))
    chosen += [("tokens", lambda s: f"{s.tokens.value:,.0f}"), ("cut off %", lambda s: f"{100 * s.truncated:.1f}")]
    if any(result.overall.change for result in results):
        chosen += [
            ("accuracy change", lambda s: percent(s.change.accuracy, signed=True) if s.change else ""),
            ("tokens change %", lambda s: percent(s.change.tokens, signed=True) if s.change else ""),
            ("AES", lambda s: score(s.change.aes) if s.change else ""),
        ]
    return chosen


def groups(results: Sequence[Result]) -> list[tuple[str, int, list[tuple[str, Summary]]]]:
    """Returns the rows of one problem set's table as (level, problems, [(model, summary)]).

    The first group is over all problems; a group for each level follows, where there are several levels.
    """
    base = results[0]
    rows = [(OVERALL, base.overall.problems, [(r.model, r.overall) for r in results])]
    if len(base.levels) > 1:
        rows += [(level, s.problems, [(r.model, r.levels[level]) for r in results]) for level, s in base.levels.items()]
    return rows


def caption(results: Sequence[Result]) -> str:
    """Returns a line on one problem set: its problems, its samples, and what the brackets in the table are."""
    first = results[0].overall
    per_problem = first.samples / first.problems
    samples = "one sample" if per_problem == 1 else f"{per_problem:.4g} samples"
    return f"{first.problems:,} problems, {samples} each; 95% bootstrap intervals in brackets"


def percent(interval: Interval, *, signed: bool = False) -> str:
    """Formats shares as '71.3 [69.0,73.4]'; 'n/a' where the figure is not defined."""
    if not np.isfinite(interval.value):
        return "n/a"
    value, low, high = (f"{100 * x:{'+' if signed else ''}.1f}" for x in interval)
    return f"{value} [{low},{high}]"


def score(interval: Interval) -> str:
    """Formats scores as '0.58 [0.51,0.64]'; 'n/a' where the figure is not defined."""
    return "{:.2f} [{:.2f},{:.2f}]".format(*interval) if np.isfinite(interval.value) else "n/a"


def plain(cell: str) -> str:
    """Text from outside, changed so that it stays in its cell and means nothing to Markdown or HTML."""
    text = " ".join(cell.split())
    for character in "\\|<>`*_":
        text = text.replace(character, f"\\{character}")
    return text
