"""An experiment's table and page: what each method came to and plots that compare them, over a report's usual page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from o1p_jax.evaluation.page import to_json, write_report
from o1p_jax.evaluation.pareto import front, pareto_plot, point_of, sweep_plot
from o1p_jax.evaluation.plots import Plot
from o1p_jax.evaluation.summary import Graded, Result, Summary
from o1p_jax.evaluation.table import OVERALL, percent, plain, score


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What stands at the top of an experiment's page."""

    headings: list[str]
    rows: list[list[str]]
    """The cells of each model's row."""
    plots: list[Plot]
    notes: list[str]


HEADINGS = ["method", "accuracy %", "tokens", "tokens change %", "AES", "AES of seeds", "outcome efficiency %",
            "levels that lost accuracy"]  # fmt: skip


def write(
    out: Path,
    of_test: Mapping[int | None, Sequence[Result]],
    sweeps: Mapping[str, Mapping[str, Result]],
    examples: Sequence[Graded],
    notes: Sequence[str],
) -> None:
    """Writes table.md and report.html of an experiment.

    `of_test` are the figures on the test problems, of each seed and (None) of all together, the base first; `sweeps`
    those on the validation problems of families of variants: {family: {value: figures}}; `examples` the solutions of
    two models that stand side by side.
    """
    results = of_test[None]
    rows = [_row(result, of_test) for result in results]
    best = {results[i].model for i in front([point_of(result) for result in results])}
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 2), "---"]]
    lines += [[f"**{row[0]}**" if row[0] in best else row[0], *row[1:]] for row in rows]
    first = results[0].overall
    caption = (
        f"{results[0].problem_set}: {first.problems:,} problems, {first.samples / first.problems:g} samples each, of "
        "all seeds together; 95% bootstrap intervals over problems in brackets. No other method beats those in bold in "
        "accuracy and tokens alike."
    )
    drawn = [pareto_plot(results)]
    if sweeps:
        drawn.append(sweep_plot({f: {v: point_of(r) for v, r in of.items()} for f, of in sweeps.items()}))
    overview = Overview(headings=HEADINGS, rows=rows, plots=drawn, notes=[caption, *notes])
    write_report(out, examples, results, title=f"Methods on {results[0].problem_set}", facts={}, overview=overview)
    cells = "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in lines)
    text = "\n\n".join([cells, *map(plain, [caption, *notes])])
    (out / "table.md").write_text(text + "\n")


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
    intervals = {
        "accuracy": summary.accuracy,
        "tokens": summary.tokens,
        "accuracy_change": change and change.accuracy,
        "tokens_change": change and change.tokens,
        "aes": change and change.aes,
    }
    flat: dict[str, Any] = {"problems": summary.problems, "samples": summary.samples}
    for name, interval in intervals.items():
        value, low, high = (None, None, None) if interval is None else map(to_json, interval)
        flat |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return flat | {
        "tokens_correct": summary.tokens_correct,
        "tokens_wrong": summary.tokens_wrong,
        "truncated": summary.truncated,
        "outcome_efficiency": summary.outcome_efficiency,
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
        if seed is not None and other.model == result.model and other.overall.change is not None
    ]
    low, high = np.min(of_seeds), np.max(of_seeds)
    spread = f"{low:.2f}" if len(of_seeds) == 1 else f"{low:.2f} to {high:.2f}"
    lost = [level for level, p in result.levels.items() if p.change is not None and p.change.accuracy.high < 0]
    return [
        *cells,
        percent(change.tokens, signed=True),
        score(change.aes),
        spread,
        efficiency,
        ", ".join(lost) or "none",
    ]
