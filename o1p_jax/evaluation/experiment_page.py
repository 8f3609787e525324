"""An experiment's table and page: what each method came to and plots that compare them, over a report's usual page."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from o1p_jax.evaluation import why
from o1p_jax.evaluation.page import Overview, to_json, write_report
from o1p_jax.evaluation.pareto import front, pareto_plot, point_of, sweep_plot
from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Graded, Result, Summary
from o1p_jax.evaluation.table import OVERALL, Column, Group, fallen, groups, percent, plain, problem_sets, score
from o1p_jax.runtime.files import write_atomic

HEADINGS = ["method", "accuracy %", "tokens", "tokens change %", "AES", "AES of seeds", "outcome efficiency %",
            "accuracy fell beyond its interval"]  # fmt: skip


def write(
    out: Path,
    of_test: Mapping[int | None, Sequence[Result]],
    sweeps: Mapping[str, Mapping[str, Result]],
    examples: Sequence[Graded],
    notes: Sequence[str],
) -> None:
    """Writes table.md and report.html of an experiment, and prints the table over all problems.

    `of_test` are the figures on the test problems, of each seed and (None) of all together, the base first; `sweeps`
    those on the validation problems of families of variants: {family: {value: figures}}; `examples` the solutions of
    two models that stand side by side.
    """
    results, shown = of_test[None], {run.model for run in examples}
    tables: dict[str, list[list[str]]] = {}
    by_level: dict[str, tuple[list[Group], list[Column]]] = {}
    plots, captions, parts = [], [], []
    for name, of_set in problem_sets(results).items():
        best = [of_set[i].model for i in front([point_of(result) for result in of_set])]
        captions.append(_caption(of_set, best))
        plots.append(pareto_plot(of_set))
        lines = [HEADINGS, *(_row(result, of_test) for result in of_set)]
        _print(name, lines)
        shown_of_set = {name: lines, f"{name}: change of accuracy and tokens by level": _by_level(of_set)}
        if why.is_known(of_set):
            plots.append(why.spent_plot(of_set))
            shown_of_set |= {f"{name}: {title}": of_title for title, of_title in why.tables(of_set).items()}
            if of_levels := groups(of_set)[1:]:
                by_level |= {f"{name}: {title}": (of_levels, cells) for title, cells in why.columns(of_set).items()}
        parts += [_markdown(title, of_title, best) for title, of_title in shown_of_set.items()]
        tables |= shown_of_set
    if sweeps:
        plots.append(sweep_plot({f: {v: point_of(r) for v, r in of.items()} for f, of in sweeps.items()}))
    if any(why.is_known(of_set) for of_set in problem_sets(results).values()):
        captions.append(f"{why.LEGEND}.")
    overview = Overview(tables=tables, by_level=by_level, plots=plots, notes=[*captions, *notes])
    of_two = [result for result in results if result.model in shown]
    write_report(out, examples, of_two, title="Methods", facts={}, notes={}, overview=overview)
    write_atomic(out / "table.md", "\n\n".join([*map(plain, overview.notes), *parts]) + "\n")


def _caption(results: Sequence[Result], best: Sequence[str]) -> str:
    first = results[0].overall
    return (
        f"{results[0].problem_set}: {first.problems:,} problems, {first.samples / first.problems:g} samples each, of "
        "all seeds together; 95% bootstrap intervals over problems in brackets. No other model beats these in accuracy "
        f"and tokens alike: {', '.join(best)}."
    )


def _markdown(title: str, lines: Sequence[Sequence[str]], best: Collection[str]) -> str:
    """Returns a table as GitHub Markdown, the models `best` in bold."""
    headings, *rows = [[plain(cell) for cell in line] for line in lines]
    bold = {plain(name) for name in best}
    rows = [[f"**{name}**" if name in bold else name, *cells] for name, *cells in rows]
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in [headings, ruler, *rows])


def _print(title: str, lines: Sequence[Sequence[str]]) -> None:
    headings, *rows = lines
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # room for every cell on one line; the table takes what it needs
    console.print(Text(title, style="bold"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _by_level(results: Sequence[Result]) -> list[list[str]]:
    """Returns a table's lines: for each model and level the change of accuracy, in points, and of tokens."""
    names = list(results[0].levels)

    def cell(summary: Summary) -> str:
        change = summary.change
        return "" if change is None else f"{percent(change.accuracy, signed=True)}; {100 * change.tokens.value:+.0f}%"

    return [["method", *names], *([r.model, *(cell(r.levels[level]) for level in names)] for r in results[1:])]


def figures(result: Result, part: str, seed: int | None) -> list[dict[str, Any]]:
    """Returns a result as rows of a flat table: one over all problems, and one a level.

    `part` says which problems these are; `seed` None stands for all seeds together.
    """
    return [
        {"part": part, "seed": seed, "model": result.model, "problem_set": result.problem_set, "level": level}
        | _flat(summary)
        for level, summary in {OVERALL: result.overall, **result.levels}.items()
    ]


def _flat(summary: Summary) -> dict[str, Any]:
    change = summary.change
    intervals: dict[str, Interval | None] = {
        "accuracy": summary.accuracy,
        "tokens": summary.tokens,
        "accuracy_change": change.accuracy if change else None,
        "tokens_change": change.tokens if change else None,
        "aes": change.aes if change else None,
    }
    if effort := summary.effort:
        intervals |= {f"tokens_{kind}_change": (effort.change or {}).get(kind) for kind in effort.tokens}
        intervals["follows_difficulty"] = effort.follows_difficulty
    flat: dict[str, Any] = {"problems": summary.problems, "samples": summary.samples}
    for name, interval in intervals.items():
        value, low, high = (None, None, None) if interval is None else map(to_json, interval)
        flat |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return flat | {
        "tokens_correct": summary.tokens_correct,
        "tokens_wrong": summary.tokens_wrong,
        "truncated": summary.truncated,
        "outcome_efficiency": summary.outcome_efficiency,
        **({f"tokens_{kind}": tokens for kind, tokens in effort.tokens.items()} if effort else {}),
    }


def _row(result: Result, of_test: Mapping[int | None, Sequence[Result]]) -> list[str]:
    s, change = result.overall, result.overall.change
    efficiency = "" if s.outcome_efficiency is None else f"{100 * s.outcome_efficiency:.1f}"
    cells = [result.model, percent(s.accuracy), f"{s.tokens.value:,.0f}"]
    if change is None:
        return [*cells, "", "", "", efficiency, ""]
    of_seeds = [
        other.overall.change.aes.value
        for seed, results in of_test.items()
        for other in results
        if seed is not None
        and (other.model, other.problem_set) == (result.model, result.problem_set)
        and other.overall.change is not None
    ]
    spread = ", ".join(f"{value:.2f}" if np.isfinite(value) else "n/a" for value in of_seeds)
    return [
        *cells,
        percent(change.tokens, signed=True),
        score(change.aes),
        spread,
        efficiency,
        ", ".join(fallen(result)) or "nowhere",
    ]
