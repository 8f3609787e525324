"""One self-contained page shows what a fine-tuning did; the JSON that it was drawn from lies beside it.

The page holds text from models and problem files: everything is escaped, characters that could hide or reorder text are
shown by their code, and a content security policy forbids scripts and every address.
"""

import dataclasses
import math
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from o1p_jax.evaluation import plots, table, why
from o1p_jax.evaluation.summary import Graded, Result, fates
from o1p_jax.grading.extract import first_answer
from o1p_jax.runtime.files import read_json, write_atomic, write_json

FATES = {
    "kept": "right before and after",
    "gained": "wrong before, right after",
    "lost": "right before, wrong after",
    "neither": "wrong before and after",
}
"""A problem's fate (see `summary.fates`) in words."""
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control, zero-width and direction characters."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """One model's first sample for a problem."""

    model: str
    tokens: int
    grade: str
    pred: str | None
    finish_reason: str
    text: str
    answered: int | None
    """Where the first correct answer ends, in characters; what follows is checking. None without a correct answer."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A problem with every model's solution."""

    problem: str
    answer: str
    level: str
    fate: str | None
    """The problem's fate from the base to the last model; None with one model."""
    solutions: list[Solution]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that stands on the page."""

    title: str
    facts: dict[str, str]
    """Facts of the run, in the order in which they are shown."""
    results: list[Result]
    notes: dict[str, list[table.Note]]
    """The notes under the tables, by problem set."""
    examples: dict[str, list[Example]]
    """Examples by problem set."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What stands at the top of an experiment's page."""

    tables: dict[str, list[list[str]]]
    """Title -> the lines of a table, the headings first."""
    by_level: dict[str, tuple[list[table.Group], list[table.Column]]]
    """Title -> the rows and columns of a further table, which is shown when it is asked for."""
    plots: list[plots.Plot]
    notes: list[str]


def write_report(
    folder: Path,
    runs: Sequence[Graded],
    results: Sequence[Result],
    *,
    title: str,
    facts: dict[str, str],
    notes: table.Notes,
    key: str = "",
    shown: int = 8,
    seed: int = 0,
    overview: Overview | None = None,
) -> Path:
    """Writes report.html, the report.json that it is drawn from, and table.md to `folder`; returns the page's path.

    `results` are those of `summary.compare(runs)`, and `notes` stand beside those that the results give; of each
    problem set, `shown` problems are shown in full. `key` stands for all that the report was made from: `read_results`
    finds it by that. An experiment's page begins with its `overview`.
    """
    by_set: dict[str, list[Graded]] = defaultdict(list)
    for run in runs:
        by_set[run.problem_set].append(run)
    report = Report(
        title=title,
        facts=facts,
        results=list(results),
        notes={
            name: [*table.verdicts(of_set), *notes.get(name, ())]
            for name, of_set in table.problem_sets(results).items()
        },
        examples={name: pick_examples(of_set, shown, seed) for name, of_set in by_set.items()},
    )
    write_atomic(folder / "table.md", table.markdown(results, notes))
    write_atomic(folder / "report.html", render(report, overview))
    write_json(folder / "report.json", {"key": key, **to_json(report)})  # last: it makes the report complete
    return folder / "report.html"


def read_results(folder: Path, key: str) -> list[Result] | None:
    """The results of the report in `folder`, if it is there and was made with this `key`."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    report = read_json(path)
    return [from_json(Result, result) for result in report["results"]] if report.get("key") == key else None


def pick_examples(runs: Sequence[Graded], shown: int, seed: int) -> list[Example]:
    """Chooses `shown` problems of one set: drawn at random by `seed`, from each fate of the last model in turn.

    So a rare loss is seen as surely as a common success. With one model, right and wrong problems take turns.
    """
    base, last = runs[0], runs[-1]
    by_fate: dict[str, list[str]] = defaultdict(list)
    for problem, fate in sorted(fates(base.rows, last.rows).items()):
        by_fate[fate].append(problem)
    rng = random.Random(seed)
    for problems in by_fate.values():
        rng.shuffle(problems)
    order = ("lost", "gained", "kept", "neither")
    turns = [
        (turn, order.index(fate), problem)
        for fate, problems in by_fate.items()
        for turn, problem in enumerate(problems)
    ]
    chosen = [(problem, order[fate]) for _, fate, problem in sorted(turns)[:shown]]
    rows = [_first_samples(run.rows, [problem for problem, _ in chosen]) for run in runs]
    return [
        Example(
            problem=rows[0][p]["problem"],
            answer=rows[0][p]["answer"],
            level=rows[0][p]["level"],
            fate=fate if len(runs) > 1 else None,
            solutions=[_solution(run.model, row[p]) for run, row in zip(runs, rows, strict=True)],
        )
        for p, fate in chosen
    ]


def render(report: Report, overview: Overview | None = None) -> str:
    """Returns the page as HTML; see `write_report`."""
    environment = Environment(
        loader=PackageLoader("o1p_jax.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    sections = [
        _section(name, of_set, report.notes[name], report.examples.get(name, []))
        for name, of_set in table.problem_sets(report.results).items()
    ]
    return environment.get_template("report.html.j2").render(
        report=report,
        overview=overview,
        sections=sections,
        fate_names=FATES,
        LEGEND=table.LEGEND,
        LEGEND_OF_PASSES=why.LEGEND,
        light=plots.LIGHT,
        dark=plots.DARK,
        color=plots.color,
    )


def to_json(value: Any) -> Any:
    """Turns dataclasses and named tuples into JSON objects, and numbers that are not finite into null."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return to_json(value._asdict())
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(kind: Any, value: Any) -> Any:
    """The inverse of `to_json` for a value of the type `kind`: null is None, or not a number where one must stand."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else from_json(next(a for a in args if a is not NoneType), value)
    if origin is dict:
        return {args[0](name): from_json(args[1], v) for name, v in value.items()}
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        return kind(**{name: from_json(hint, value[name]) for name, hint in get_type_hints(kind).items()})
    return math.nan if value is None and kind is float else value


def _section(
    name: str, results: Sequence[Result], notes: Sequence[table.Note], examples: Sequence[Example]
) -> dict[str, Any]:
    """What the template needs for one problem set."""
    drawn = [plots.accuracy_against_tokens(results)]
    if len(results[0].levels) > 1:
        drawn.append(plots.tokens_by_level(results))
    if results[0].overall.at_budget:
        drawn.append(plots.accuracy_at_budgets(results))
    known = why.is_known(results)
    return {
        "name": name,
        "caption": table.caption(results),
        "results": results,
        "base": results[0].overall,
        "last": results[-1].overall,
        "notes": notes,
        "columns": table.columns(results),
        "columns_of_tokens": table.columns_of_tokens(results),
        "groups": table.groups(results),
        "plots": drawn,
        "examples": examples,
        "why": why.columns(results) if known else {},
        "difficulty": why.table_of_difficulty(results) if known else [],
        "spent": why.spent_plot(results) if known else None,
        "most": max((s.tokens for example in examples for s in example.solutions), default=1),
    }


def _first_samples(rows: pa.Table, problems: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Problem id -> its row with the lowest sample_idx."""
    few = rows.filter(pc.is_in(rows["problem_id"], pa.array(problems, pa.string())))
    return {row["problem_id"]: row for row in few.sort_by([("sample_idx", "descending")]).to_pylist()}


def _solution(model: str, row: dict[str, Any]) -> Solution:
    """The solution that a row of graded rollouts holds."""
    answered = first_answer(row["completion"], row["answer"]) if row["grade"] == "correct" else None
    return Solution(
        model=model,
        tokens=len(row["completion_ids"]),
        grade=row["grade"],
        pred=row["pred"],
        finish_reason=row["finish_reason"],
        text=row["completion"],
        answered=answered,
    )


def _visible(value: Any) -> Any:
    """Shows hidden characters by their code, so that no text can hide or reorder what stands beside it."""
    if type(value) is str:
        return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    return value
