"""What a model's tokens are spent on, by kinds of passes (`grading.passes`), and whether harder problems get more.

Axes: P problems, N samples, K kinds of passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from o1p_jax.evaluation.scores import Interval, bootstrap_means, interval, problem_sums, rank_correlation
from o1p_jax.grading.extract import stated
from o1p_jax.grading.passes import KINDS, Stretch, cut

_TOKENS, _ANSWERED = "tokens_by_kind", "is_answered"
QUARTERS = ("0-25%", "25-50%", "50-75%", "75-100%")
"""How often the base is right on a problem; a bound belongs to the lower of its quarters."""


class Quarter(NamedTuple):
    """The problems that the base solves about as often as each other."""

    problems: int
    tokens: float
    """The model's mean tokens on them."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a model's tokens are spent on."""

    tokens: dict[str, float]
    """Kind of pass (`passes.KINDS`) -> mean tokens of a solution; they add up to the summary's `tokens`."""
    change: dict[str, Interval] | None
    """Kind of pass -> change of these tokens against the base; None for the base itself."""
    unanswered: float
    """Share of the samples in whose text no answer was recognised, so that it was not cut."""
    by_accuracy: dict[str, Quarter]
    """Share of the base's samples that are right (`QUARTERS`) -> the problems of that share; those without are none."""
    follows_difficulty: Interval
    """Rank correlation, over problems, of the share of the base's samples that are not right with the model's mean
    tokens: above 0, harder problems get more."""


def with_passes(rows: pa.Table, text_lengths: Callable[[Sequence[int]], Sequence[int]]) -> pa.Table:
    """Returns graded rollouts with each solution's tokens by kind of pass, and whether an answer was recognised in it.

    `text_lengths` tells how many characters each of a list of tokens stands for.
    """
    tokens, answered = [], []
    # One solution's ids at a time: as Python's numbers all of them would take gigabytes.
    columns = (rows[name] for name in ("completion", "completion_ids", "answer", "pred", "grade"))
    for row in zip(*columns, strict=True):
        text, ids, gold, pred, grade = (value.as_py() for value in row)
        parts = cut(text, [stated(gold), *([pred] if grade == "correct" and pred else [])], pred)
        tokens.append(_tokens_K(parts.stretches, text_lengths(ids)))
        answered.append(parts.is_answered)
    of_kinds = pa.FixedSizeListArray.from_arrays(pa.array(np.array(tokens, np.int64).ravel()), len(KINDS))
    return rows.append_column(_TOKENS, of_kinds).append_column(_ANSWERED, pa.array(answered, pa.bool_()))


def _tokens_K(stretches: Sequence[Stretch], lengths: Sequence[int]) -> Int[np.ndarray, "K"]:
    """A solution's tokens by kind: a token belongs to the stretch in which its text ends, the last ones to the last.

    A tokenizer's lengths may miss those of the text (for a character of several tokens): they are scaled to it.
    """
    tokens_K = np.zeros(len(KINDS), np.int64)
    ends = np.cumsum(lengths)
    scale = ends[-1] / stretches[-1].end if len(ends) and stretches[-1].end else 1.0
    places = [np.searchsorted(ends, scale * stretch.end, side="right") for stretch in stretches[:-1]]
    for stretch, (start, end) in zip(stretches, pairwise([0, *places, len(ends)]), strict=True):
        tokens_K[KINDS.index(stretch.kind)] += end - start
    return tokens_K


def effort_of(rows: pa.Table, base: pa.Table | None, resamples: int, seed: int) -> Effort | None:
    """Returns what the tokens of the `rows` are spent on, against those of the table `base`, on the same problems.

    Without a base the rows are a base themselves. None where rows or base are not cut into passes (`with_passes`).
    """
    if any(_TOKENS not in table.column_names for table in (rows, base) if table is not None):
        return None
    before = rows if base is None else base
    tokens_PK, before_PK = (_problem_means(t, t[_TOKENS].combine_chunks().flatten()) for t in (rows, before))
    accuracy_P = _problem_means(before, pc.equal(before["grade"], "correct"))[:, 0]
    changes_PK = tokens_PK - before_PK
    draws_BK = bootstrap_means(changes_PK, resamples, seed)
    quarter_P = np.clip(np.ceil(4 * accuracy_P).astype(int) - 1, 0, 3)
    mean_P = tokens_PK.sum(1)
    return Effort(
        tokens=dict(zip(KINDS, tokens_PK.mean(0).tolist(), strict=True)),
        change=None
        if base is None
        else {
            kind: interval(value, draws_B)
            for kind, value, draws_B in zip(KINDS, changes_PK.mean(0), draws_BK.T, strict=True)
        },
        unanswered=1 - float(np.mean(rows[_ANSWERED].to_numpy())),
        by_accuracy={
            name: Quarter(int(np.sum(quarter_P == i)), float(mean_P[quarter_P == i].mean()))
            for i, name in enumerate(QUARTERS)
            if np.any(quarter_P == i)
        },
        follows_difficulty=rank_correlation(1 - accuracy_P, mean_P, resamples, seed),
    )


def _problem_means(rows: pa.Table, values: pa.Array | pa.ChunkedArray) -> Float[np.ndarray, "P S"]:
    """The means of the samples' values, of which each sample has one or several in a row, for each problem."""
    values_NS = values.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(rows), -1)
    sums_PS, count_P = problem_sums(rows["problem_id"].to_pylist(), values_NS)
    return sums_PS / count_P[:, None]
