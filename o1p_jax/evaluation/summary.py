"""Graded rollouts become figures: accuracy, tokens and AES, overall and by difficulty, each with an interval.

Everything is grouped and paired by problem id, never by position. A mean is the mean over problems of the mean over a
problem's samples, so that a problem with a lost sample counts like the others. Intervals are 95% percentile bootstrap
intervals over problems; a model and its base see the same resamples.

Axes: P problems, N samples, B bootstrap resamples, S statistics.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from o1p_jax.evaluation.effort import Effort, effort_of
from o1p_jax.evaluation.scores import (
    Interval,
    aes,
    bootstrap_means,
    interval,
    pass_at_k,
    problem_sums,
    share_of_budgets,
)
from o1p_jax.grading.extract import first_answer
from o1p_jax.runtime.errors import BadInput


class Graded(NamedTuple):
    """The graded rollouts of one model on one problem set.

    `rows` has the columns of the rollouts' schema, and may have `thought_tokens`: a solution's tokens up to the end of
    its last thought, null where it has none; and the columns of `effort.with_passes`.
    """

    model: str
    problem_set: str
    rows: pa.Table


@dataclass(frozen=True, kw_only=True)
class Change:
    """A model compared with its base on the same problems."""

    accuracy: Interval
    """Difference of the accuracies, -1 to 1."""
    tokens: Interval
    """Relative change of the mean tokens: -0.3 is 30% fewer tokens."""
    aes: Interval
    """Accuracy-efficiency score, see `aes`."""
    fates: dict[str, int]
    """Number of problems by fate, see `fates`."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a model did on some problems."""

    problems: int
    samples: int
    accuracy: Interval
    """avg@k for k samples a problem: the mean over problems of the share of a problem's samples that are correct."""
    tokens: Interval
    """Mean tokens of a solution as sampled, its end-of-sequence token included."""
    tokens_thought: float | None
    """Mean tokens of a solution up to the end of its last thought, the mark included; a solution without a thought
    counts as 0, one that does not close its thought as a whole. None where no solution has a thought."""
    tokens_after: float | None
    """Mean tokens behind the thought, so that the two add up to `tokens`; None where no solution has a thought."""
    at_budget: dict[int, Interval]
    """Token budget -> share of the samples that are correct and no longer than the budget, as `accuracy` is a mean."""
    budget_area: Interval | None
    """Area under the curve of accuracy against budget, see `share_of_budgets`; None without budgets."""
    tokens_correct: float | None
    """Mean tokens of the correct samples; None without one."""
    tokens_wrong: float | None
    """Mean tokens of the other samples; None without one."""
    truncated: float
    """Share of the samples that max_tokens cut off."""
    pass_at: dict[int, float]
    """k -> chance that one of k samples is correct; k = 1, 2, 4, ... and the most samples that every problem has."""
    outcome_efficiency: float | None
    """Mean over the correct samples of the share of the text up to the first correct answer (`first_answer`)."""
    grades: dict[str, int]
    """Number of samples by grade; all but 'correct' count as not correct ('timeout', 'bad_gold': the grader failed)."""
    effort: Effort | None
    """What the tokens are spent on; None where the solutions of the model or its base are not cut into passes."""
    change: Change | None
    """The change against the base; None for the base itself."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The figures of one model on one problem set."""

    model: str
    problem_set: str
    overall: Summary
    levels: dict[str, Summary]
    """Figures by difficulty, in natural order ("level 9" before "level 10")."""


def compare(
    runs: Sequence[Graded],
    *,
    budgets: Sequence[int] = (),
    resamples: int = 2000,
    seed: int = 0,
    as_printed: bool = False,
) -> list[Result]:
    """Returns the figures of every run; on each problem set the first model is the base of the others.

    `budgets` are the token budgets, in rising order, that accuracy is told at. `as_printed` selects the paper's printed
    AES column, see `aes`. Raises BadInput for rollouts without grades or without rows, and for a model and its base on
    different problems.
    """
    bases: dict[str, Graded] = {}
    results = []
    for run in runs:
        base = bases.setdefault(run.problem_set, run)
        _check(run, base)
        parts = {
            level: summarize(
                _at_level(run.rows, level),
                None if run is base else _at_level(base.rows, level),
                budgets=budgets,
                resamples=resamples,
                seed=seed,
                as_printed=as_printed,
            )
            for level in (None, *sorted(set(run.rows["level"].to_pylist()), key=_natural))
        }
        overall = parts.pop(None)
        results.append(
            Result(
                model=run.model,
                problem_set=run.problem_set,
                overall=overall,
                levels={level: part for level, part in parts.items() if level is not None},
            )
        )
    return results


def summarize(
    rows: pa.Table,
    base: pa.Table | None = None,
    *,
    budgets: Sequence[int] = (),
    resamples: int = 2000,
    seed: int = 0,
    as_printed: bool = False,
) -> Summary:
    """Returns the figures of one table of graded rollouts, and the change against the table `base`."""
    grades_N = np.array(rows["grade"].to_pylist())
    correct_N = grades_N == "correct"
    tokens_N = pc.list_value_length(rows["completion_ids"]).to_numpy().astype(np.float64)
    means_PS, count_P, correct_P = _per_problem(rows, budgets)
    means_BS = bootstrap_means(means_PS, resamples, seed)
    accuracy, tokens, thought, *of_budgets = (
        interval(value, draws) for value, draws in zip(means_PS.mean(0), means_BS.T, strict=True)
    )

    change = None
    if base is not None:
        base_PS, *_ = _per_problem(base, budgets)
        draws = _change(bootstrap_means(base_PS, resamples, seed), means_BS, as_printed)
        values = _change(base_PS.mean(0, keepdims=True), means_PS.mean(0, keepdims=True), as_printed)
        intervals = [interval(value.item(), draw) for value, draw in zip(values, draws, strict=True)]
        change = Change(
            accuracy=intervals[0],
            tokens=intervals[1],
            aes=intervals[2],
            fates=dict(Counter(fates(base, rows).values())),
        )

    has_thoughts = "thought_tokens" in rows.column_names and rows["thought_tokens"].null_count < len(rows)
    most = int(count_P.min())
    ks = sorted({2**i for i in range(most.bit_length())} | {most})
    right = rows.filter(pa.array(correct_N))
    shares = [
        (first_answer(text, gold) or len(text)) / max(len(text), 1)
        for text, gold in zip(right["completion"].to_pylist(), right["answer"].to_pylist(), strict=True)
    ]
    return Summary(
        problems=len(count_P),
        samples=len(rows),
        accuracy=accuracy,
        tokens=tokens,
        tokens_thought=thought.value if has_thoughts else None,
        tokens_after=tokens.value - thought.value if has_thoughts else None,
        at_budget=dict(zip(budgets, of_budgets, strict=False)),
        budget_area=of_budgets[-1] if budgets else None,
        tokens_correct=_mean(tokens_N[correct_N]),
        tokens_wrong=_mean(tokens_N[~correct_N]),
        truncated=float(np.mean(np.array(rows["finish_reason"].to_pylist()) == "length")),
        pass_at={k: pass_at_k(count_P, correct_P, k) for k in ks},
        outcome_efficiency=_mean(np.array(shares)),
        grades=dict(Counter(grades_N.tolist())),
        effort=effort_of(rows, base, resamples, seed),
        change=change,
    )


def fates(base: pa.Table, rows: pa.Table) -> dict[str, str]:
    """Returns for each problem id the fate of the problem's first sample, from the table `base` to the table `rows`.

    The fates are 'kept' (right before and after), 'gained', 'lost' and 'neither'.
    """
    before, after = _first_is_correct(base), _first_is_correct(rows)
    names = {(True, True): "kept", (False, True): "gained", (True, False): "lost", (False, False): "neither"}
    return {problem: names[before[problem], after[problem]] for problem in before}


def _first_is_correct(rows: pa.Table) -> dict[str, bool]:
    """For each problem id, whether the sample with the lowest sample_idx is correct."""
    columns = (rows[name].to_pylist() for name in ("problem_id", "sample_idx", "grade"))
    last_to_first = sorted(zip(*columns, strict=True), reverse=True)
    return {problem: grade == "correct" for problem, _, grade in last_to_first}


def _check(run: Graded, base: Graded) -> None:
    """Raises `BadInput` for a run that has no rows or no grades, or other problems than its base."""
    where = f"{run.model} on {run.problem_set}"
    if not len(run.rows):
        raise BadInput(f"{where}: no rollouts; sample them with presample first")
    if run.rows["grade"].null_count:
        raise BadInput(f"{where}: {run.rows['grade'].null_count} rollouts have no grade; grade them first")
    ours, theirs = (
        set(zip(r.rows["problem_id"].to_pylist(), r.rows["level"].to_pylist(), strict=True)) for r in (run, base)
    )
    if ours != theirs:
        raise BadInput(
            f"{where}: {len(ours - theirs)} problems that {base.model} lacks, {len(theirs - ours)} missing; "
            "sample both models on the same problem set"
        )


def _at_level(rows: pa.Table, level: str | None) -> pa.Table:
    """The rows of one difficulty; None means all rows."""
    return rows if level is None else rows.filter(pc.equal(rows["level"], level))


def _natural(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key under which 'level 10' follows 'level 9'; equal numbers (10, 010) go by their text."""
    parts = [(part, part.lstrip("0") if part.isdecimal() else "") for part in re.split(r"(\d+)", text)]
    return [(not part.isdecimal(), len(digits), digits or part) for part, digits in parts], text


def _per_problem(rows: pa.Table, budgets: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(problems' means [P, S], number of samples [P], of correct samples [P]), sorted by problem id.

    The means are of correctness, of tokens, of the thought's tokens and, where there are budgets, of correctness within
    each of them and of the share of the budgets.
    """
    correct_N = pc.equal(rows["grade"], "correct").to_numpy()
    tokens_N = pc.list_value_length(rows["completion_ids"]).to_numpy()
    thought_N = np.zeros(len(rows))
    if "thought_tokens" in rows.column_names:
        thought_N = pc.fill_null(rows["thought_tokens"], 0).to_numpy()
    values = [correct_N, tokens_N, thought_N, *(correct_N & (tokens_N <= budget) for budget in budgets)]
    if budgets:
        values.append(share_of_budgets(tokens_N, correct_N, budgets[0], budgets[-1]))
    sums_PS, count_P = problem_sums(rows["problem_id"].to_pylist(), np.stack(values, axis=1).astype(np.float64))
    return sums_PS / count_P[:, None], count_P, sums_PS[:, 0].astype(np.int64)


def _change(base_BS: np.ndarray, new_BS: np.ndarray, as_printed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The changes from base to model: (difference of accuracy, relative change of tokens, AES), each [B]."""
    (a0, l0), (a1, l1) = base_BS.T[:2], new_BS.T[:2]
    tokens = np.divide(l1 - l0, l0, out=np.full_like(l0, np.nan), where=l0 > 0)
    return a1 - a0, tokens, aes(a0, l0, a1, l1, as_printed=as_printed)


def _mean(values: np.ndarray) -> float | None:
    """The mean of the values; None without values."""
    return float(values.mean()) if len(values) else None
