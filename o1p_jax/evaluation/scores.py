"""The figures of an evaluation, as pure functions of arrays.

Axes: P problems, N samples, B bootstrap resamples, S statistics.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Interval(NamedTuple):
    """A figure with its 95% interval; all three are not a number (NaN) where the figure is not defined."""

    value: float
    low: float
    high: float


def aes(base_accuracy, base_tokens, accuracy, tokens, *, as_printed: bool = False) -> np.ndarray:
    """Returns the accuracy-efficiency score (arXiv 2501.12570, section 5): dL + 3 |dA| where dA >= 0, else dL - 5 |dA|.

    dL = (L_base - L) / L_base and dA = (A - A_base) / A_base are relative; the arguments broadcast. The score is not a
    number where a base is 0. `as_printed` adds 3 |dA| whatever the sign of dA: the paper's printed column does so,
    against its formula.
    """
    base_accuracy, base_tokens, accuracy, tokens = (
        np.asarray(value, np.float64) for value in (base_accuracy, base_tokens, accuracy, tokens)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        dL = (base_tokens - tokens) / base_tokens
        dA = (accuracy - base_accuracy) / base_accuracy
        score = dL + np.where((dA >= 0) | as_printed, 3.0, -5.0) * np.abs(dA)
    return np.where(np.isfinite(score), score, np.nan)


def pass_at_k(count_P: Int[np.ndarray, "P"], correct_P: Int[np.ndarray, "P"], k: int) -> float:
    """Returns the unbiased pass@k (arXiv 2107.03374, equation 1): the mean over problems of 1 - C(n - c, k) / C(n, k).

    `count_P` are the problems' numbers of samples n, none below `k`, and `correct_P` how many of them are correct, c.
    """
    misses = [comb(n - c, k) / comb(n, k) for n, c in zip(count_P.tolist(), correct_P.tolist(), strict=True)]
    return 1 - float(np.mean(misses))


def share_of_budgets(
    tokens_N: Int[np.ndarray, "N"], correct_N: Bool[np.ndarray, "N"], least: int, most: int
) -> Float[np.ndarray, "N"]:
    """Returns for each sample the share of the budgets from `least` to `most` at which the sample counts as right.

    The share is taken on the logarithm of the budget, so that every halving weighs the same. The samples' mean is the
    exact area under the curve of accuracy against log(budget), divided by the axis' length: the accuracy at a budget
    drawn at random between the two. With one budget it is the accuracy at that one.
    """
    fits_N = correct_N & (tokens_N <= most)
    if least == most:
        return fits_N.astype(np.float64)
    return fits_N * np.log(most / np.clip(tokens_N, least, most)) / np.log(most / least)


def problem_sums(
    problems: Sequence[str], values_NS: Float[np.ndarray, "N S"]
) -> tuple[Float[np.ndarray, "P S"], Int[np.ndarray, "P"]]:
    """Returns the sums of the samples' values for each problem, and its number of samples, in the ids' order.

    `problems` are the ids of the samples' problems.
    """
    _, which_N, count_P = np.unique(np.array(problems), return_inverse=True, return_counts=True)
    return np.stack([np.bincount(which_N, weights=value_N) for value_N in values_NS.T], axis=1), count_P


def bootstrap_means(values_PS: Float[np.ndarray, "P S"], resamples: int, seed: int) -> Float[np.ndarray, "B S"]:
    """Returns the means over `resamples` resamples of the problems.

    The resamples are the same for the same P and seed, whatever the values.
    """
    rng = np.random.default_rng(seed)
    P = len(values_PS)
    chunk = max(1, 2**22 // P)  # bounds the counts at 32 MiB
    counts = (
        rng.multinomial(P, np.full(P, 1 / P), size=min(chunk, resamples - start))
        for start in range(0, resamples, chunk)
    )
    return np.concatenate([counts_BP @ values_PS / P for counts_BP in counts])


def interval(value: float, draws_B: Float[np.ndarray, "B"]) -> Interval:
    """Returns a figure's interval, from those of its resamples in which it is defined (in some no base is correct)."""
    defined = draws_B[np.isfinite(draws_B)]
    low, high = np.percentile(defined, (2.5, 97.5)) if len(defined) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def ranks(values_P: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
    """Returns the values' ranks, from 1 on; equal values share the mean of their ranks."""
    _, which_P, counts = np.unique(values_P, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which_P]


def rank_correlation(x_P: Float[np.ndarray, "P"], y_P: Float[np.ndarray, "P"], resamples: int, seed: int) -> Interval:
    """Returns Spearman's rank correlation, not a number where all x or all y are equal.

    The interval is that of the correlation of these ranks: a resample's problems keep the ranks that they have among
    all problems.
    """
    x_P, y_P = (ranks(v_P) - (len(v_P) + 1) / 2 for v_P in (x_P, y_P))  # around 0, so that little cancels
    values_PS = np.stack([x_P, y_P, x_P**2, y_P**2, x_P * y_P], axis=1)
    means_BS = np.concatenate([values_PS.mean(0, keepdims=True), bootstrap_means(values_PS, resamples, seed)])
    x, y, xx, yy, xy = means_BS.T
    with np.errstate(divide="ignore", invalid="ignore"):
        value, *draws_B = (xy - x * y) / np.sqrt((xx - x**2) * (yy - y**2))
    return interval(value, np.array(draws_B)) if np.isfinite(value) else Interval(np.nan, np.nan, np.nan)
