"""The before/after tables: their cells are the same on the terminal, in Markdown and on the report's page.

Each problem set has two tables, of what changed and of where the tokens go, and notes under them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Result, Summary

OVERALL = "all"
"""The level of the rows over all problems."""
LEGEND = (
    "≤N: right, and no longer than N tokens; area: under the curve of that accuracy against the logarithm of N; "
    "thought, after it, if right, if wrong: mean tokens; outcome efficiency: share of a right solution up to its first "
    "right answer"
)
"""What the columns of the second table are."""
FEWEST_PROBLEMS = 8
"""A level of fewer problems is not judged by itself: resamples of so few tell too little of what could have been."""
Column = tuple[str, Callable[[Summary], str]]
"""A column's heading, and the function from a summary to the column's cell."""
Group = tuple[str, int, list[tuple[str, Summary]]]
"""Rows of a table: the level, its number of problems, and each model's summary."""


class Note(NamedTuple):
    """A line under the tables of a problem set."""

    text: str
    warns: bool = False
    """Whether the line tells of something that speaks against the figures, or against the model."""


Notes = Mapping[str, Sequence[Note]]
"""Further notes by problem set, beside those that the results themselves give."""


def show(results: Sequence[Result], notes: Notes) -> None:
    """Prints the tables and notes of every problem set on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # room for every cell on one line; the table takes what it needs
    for problem_set, of_set in problem_sets(results).items():
        for above, shown in tables(problem_set, of_set):
            console.print(Text(above, style="bold"))
            table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            for heading in ("level", "model", *(heading for heading, _ in shown)):
                justify: JustifyMethod = "left" if heading in ("level", "model") else "right"
                table.add_column(heading, justify=justify, overflow="fold")  # a narrow terminal cuts nothing off
            for level, _, members in groups(of_set):
                for i, (model, summary) in enumerate(members):
                    cells = [Text(level if i == 0 else ""), Text(model), *(Text(cell(summary)) for _, cell in shown)]
                    table.add_row(*cells, end_section=i == len(members) - 1)
            console.print(table)
        for note in [*verdicts(of_set), *notes.get(problem_set, ())]:
            console.print(Text(note.text, style="bold red" if note.warns else ""))


def markdown(results: Sequence[Result], notes: Notes) -> str:
    """Returns the tables and notes of all problem sets as GitHub Markdown."""
    parts = []
    for problem_set, of_set in problem_sets(results).items():
        for above, shown in tables(problem_set, of_set):
            parts.append(plain(above))
            lines = [["level", "model", *(heading for heading, _ in shown)], ["---", "---", *["---:"] * len(shown)]]
            for level, _, members in groups(of_set):
                lines += [[level, model, *(cell(summary) for _, cell in shown)] for model, summary in members]
            parts.append("\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines))
        lines_of_notes = [(plain(text), warns) for text, warns in [*verdicts(of_set), *notes.get(problem_set, ())]]
        parts.append("\n".join(f"- **{text}**" if warns else f"- {text}" for text, warns in lines_of_notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def problem_sets(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Returns the results by problem set, both in the order in which they came."""
    sets: dict[str, list[Result]] = {}
    for result in results:
        sets.setdefault(result.problem_set, []).append(result)
    return sets


def tables(problem_set: str, results: Sequence[Result]) -> list[tuple[str, list[Column]]]:
    """Returns the two tables of a problem set, each as the line above it and its columns."""
    return [(f"{problem_set}: {caption(results)}", columns(results)), (LEGEND, columns_of_tokens(results))]


def columns(results: Sequence[Result]) -> list[Column]:
    """Returns the columns that say something about these results of one problem set."""
    most = min(max(result.overall.pass_at) for result in results)
    averaged = most > 1 and all(r.overall.samples == most * r.overall.problems for r in results)
    chosen: list[Column] = [(f"accuracy %{f' (avg@{most})' * averaged}", lambda s: percent(s.accuracy))]
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


def columns_of_tokens(results: Sequence[Result]) -> list[Column]:
    """Returns the columns of the second table, which `LEGEND` explains."""
    chosen: list[Column] = []
    for budget in results[0].overall.at_budget:
        chosen.append((f"≤{budget:,} %", partial(_within, budget)))
    if results[0].overall.budget_area:
        chosen.append(("area %", lambda s: percent(s.budget_area) if s.budget_area else ""))
    if any(result.overall.tokens_thought is not None for result in results):
        chosen += [("thought", lambda s: _tokens(s.tokens_thought)), ("after it", lambda s: _tokens(s.tokens_after))]
    return [
        *chosen,
        ("if right", lambda s: _tokens(s.tokens_correct)),
        ("if wrong", lambda s: _tokens(s.tokens_wrong)),
        ("outcome efficiency %", _efficiency),
    ]


def verdicts(results: Sequence[Result]) -> list[Note]:
    """Returns for each model but the base a note on accuracy that fell: where it did, or that it did nowhere.

    Accuracy fell where its change's 95% interval lies below 0; each level is looked at by itself.
    """
    return [_verdict(result) for result in results if result.overall.change]


def fallen(result: Result) -> dict[str, Interval]:
    """Returns the changes of accuracy whose 95% interval lies below 0, by where: over all problems, or on a level."""
    return {where: change for where, change in _changes(result).items() if change.high < 0}


def _changes(result: Result) -> dict[str, Interval]:
    parts = {"all problems": result.overall}
    if len(result.levels) > 1:
        judged = {level: of for level, of in result.levels.items() if of.problems >= FEWEST_PROBLEMS}
        parts |= {f"level {level}": summary for level, summary in judged.items()}
    return {where: summary.change.accuracy for where, summary in parts.items() if summary.change}


def _verdict(result: Result) -> Note:
    changes = _changes(result)
    few = [level for level, of in result.levels.items() if of.problems < FEWEST_PROBLEMS and len(result.levels) > 1]
    unjudged = f" (not judged, of fewer than {FEWEST_PROBLEMS} problems: level {', '.join(few)})" if few else ""
    if fell := [f"{where} ({percent(c, signed=True)} points)" for where, c in fallen(result).items()]:
        return Note(f"{result.model}: accuracy fell beyond its 95% interval on {', '.join(fell)}{unjudged}", warns=True)
    where, worst = min(changes.items(), key=lambda change: change[1].low)
    nowhere = "on no level and not overall" if len(changes) > 1 else "nowhere"
    return Note(
        f"{result.model}: accuracy fell beyond its 95% interval {nowhere}; the lowest end of an interval is "
        f"{100 * worst.low:+.1f} points ({where}){unjudged}"
    )


def groups(results: Sequence[Result]) -> list[Group]:
    """Returns the rows of one problem set's table.

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


def _within(budget: int, summary: Summary) -> str:
    return f"{100 * summary.at_budget[budget].value:.1f}"


def _efficiency(summary: Summary) -> str:
    share = summary.outcome_efficiency
    return "–" if share is None else f"{100 * share:.1f}"  # noqa: RUF001


def _tokens(mean: float | None) -> str:
    return "–" if mean is None else f"{mean:,.0f}"  # noqa: RUF001


def plain(cell: str) -> str:
    """Text from outside, changed so that it stays in its cell and means nothing to Markdown or HTML."""
    text = " ".join(cell.split())
    for character in "\\|<>`*_":
        text = text.replace(character, f"\\{character}")
    return text
