"""The stage that weighs a pool's graded samples: what a sample is worth to the method, and whether it is trained on."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from o1p_jax.config.text import plain
from o1p_jax.data.pool import Pool
from o1p_jax.data.shards import META, ShardedTable
from o1p_jax.methods import method_of
from o1p_jax.methods.base import Group, Params
from o1p_jax.methods.own_reward import reward_function
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder, read_summed_json, write_json_with_sum
from o1p_jax.runtime.progress import say

WEIGHTS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample_idx", pa.int32()),
        ("ref_mean_len", pa.float64()),  # Lbar: mean tokens over the problem's samples
        ("ref_acc", pa.float64()),  # Abar: share of them that is correct
        ("reward", pa.float64()),  # as the method gives it, neither clipped nor normalised
        ("weight", pa.float64()),  # the advantage; null: not kept for training
    ]
)

_REPORT = "_report.json"


@dataclass(frozen=True, kw_only=True)
class WeightReport:
    """What `weigh` found. Every count is of samples where not said otherwise."""

    problems: int
    samples: int
    kept: int
    """Samples that are trained on: they have a weight."""
    wrong: int
    """Samples that were graded wrong or unparsed."""
    wrong_positive: int
    """Kept samples that are wrong and have a positive weight all the same: short enough to be rewarded."""
    truncated: int
    """Samples that max_tokens cut off."""
    empty: int
    """Samples without a token, which are never kept."""
    undecided: int
    """Samples whose grading timed out or whose gold answer can't be read; neither kept nor counted in the means."""
    all_right: int
    """Problems whose samples are all correct: only length tells them apart."""
    all_wrong: int
    """Problems without a correct sample."""
    reward_std: float
    """Standard deviation of the kept samples' rewards, within the method's limits; 0 makes every z-score 0."""

    @property
    def wrong_positive_share(self) -> float:
        """The share of the kept samples that are wrong and have a positive weight."""
        return self.wrong_positive / self.kept if self.kept else 0.0

    def for_card(self) -> dict[str, Any]:
        """Returns the figures that the model card shows, by name."""
        return {
            "problems": self.problems,
            "solutions sampled": self.samples,
            "solutions trained on": self.kept,
            "of them wrong with a positive weight": f"{self.wrong_positive_share:.1%}",
        }

    def line(self) -> str:
        """Returns the report as one line for people."""
        return (
            f"weigh: kept {self.kept} of {self.samples} samples of {self.problems} problems ({self.all_right} all "
            f"right, {self.all_wrong} all wrong), reward std {self.reward_std:.4f}, {self.wrong} wrong, "
            f"{self.wrong_positive} wrong with a positive weight ({self.wrong_positive_share:.1%} of the kept), "
            f"{self.truncated} truncated, {self.empty} empty, {self.undecided} undecided by the grader"
        )


def weigh(
    pool: Pool, grades: ShardedTable, params: Params, seed: int, made_by: Mapping[str, Any], out: Path
) -> WeightReport:
    """Writes each sample's means, reward and weight by the method of `params` to the folder `out`.

    The means Lbar and Abar are those of each problem's decided samples. The method chooses which samples are kept; the
    lots that it may draw are a hash of (seed, problem, sample), so that neither order nor other problems matter. The
    weights come from the rewards of all kept samples of the pool. A folder that was made by the same `made_by` (JSON
    values) stays as it is. Raises BadInput when nothing can be kept, and where a user's reward fails.
    """
    if (report := _earlier(out, made_by)) is not None:
        say(report.line())
        return report
    data = _columns(pool, grades)
    filled, report = _weigh(data, params, seed)
    say(report.line())
    if report.kept == 0:
        raise BadInput(f"{pool.path}: no sample can be trained on; look at its grades and completions")
    columns = {"problem_id": data.problem_N, "sample_idx": data.sample_N}
    columns |= {name: _nullable(column) for name, column in filled.items()}
    with atomic_folder(out) as temporary:
        table = ShardedTable.create(temporary, WEIGHTS, made_by, 1)
        table.write_shard(0, pa.table(columns, WEIGHTS))
        write_json_with_sum(temporary / _REPORT, asdict(report))
    return report


def read_weights(out: Path) -> ShardedTable:
    """Opens the table that `weigh` wrote to the folder `out`."""
    return ShardedTable(out, WEIGHTS)


def read_report(out: Path) -> WeightReport:
    """Reads the report of what `weigh` found when it wrote the folder `out`."""
    return WeightReport(**read_summed_json(out / _REPORT))


def _earlier(out: Path, made_by: Mapping[str, Any]) -> WeightReport | None:
    """Returns the report of an earlier start; None where there is none, or `made_by` has changed since."""
    if not (out / META).is_file():
        return None
    return read_report(out) if read_weights(out).metadata == plain({**made_by, "shards": 1}) else None


@dataclass(frozen=True)
class _Columns:
    """The values that weighing needs of all N samples."""

    problem_N: list[str]
    sample_N: list[int]
    length_N: np.ndarray
    correct_N: np.ndarray
    decided_N: np.ndarray
    truncated_N: np.ndarray


def _columns(pool: Pool, grades: ShardedTable) -> _Columns:
    table = pool.read(["problem_id", "sample_idx", "completion_ids", "grade", "finish_reason"], grades)
    length_N = pc.list_value_length(table["completion_ids"]).to_numpy()
    grade_N = np.array(table["grade"].to_pylist(), object)
    finish_N = np.array(table["finish_reason"].to_pylist(), object)
    bad_gold = set(np.array(table["problem_id"].to_pylist(), object)[grade_N == "bad_gold"])
    problem_N = table["problem_id"].to_pylist()
    decided_N = (grade_N != "timeout") & np.array([p not in bad_gold for p in problem_N], bool)
    return _Columns(
        problem_N, table["sample_idx"].to_pylist(), length_N, grade_N == "correct", decided_N, finish_N == "length"
    )


def _weigh(data: _Columns, params: Params, seed: int) -> tuple[dict[str, np.ndarray], WeightReport]:
    """Returns the four columns of `WEIGHTS` that weighing fills in (NaN stands for null), and the report."""
    method = method_of(params)
    reward = reward_function(method, params)
    groups: dict[str, list[int]] = {}
    for row, problem in enumerate(data.problem_N):
        groups.setdefault(problem, []).append(row)

    n = len(data.problem_N)
    filled = {name: np.full(n, np.nan) for name in ("ref_mean_len", "ref_acc", "reward", "weight")}
    kept: list[int] = []
    for problem, rows in groups.items():
        decided = [row for row in rows if data.decided_N[row]]
        if not decided:
            continue
        group = Group(data.length_N[decided], data.correct_N[decided], data.truncated_N[decided])
        filled["ref_mean_len"][rows] = group.length_K.mean()
        filled["ref_acc"][rows] = group.correct_K.mean()
        reward_K = filled["reward"][decided] = reward(problem, group)
        lot_K = _lots(seed, problem, [data.sample_N[row] for row in decided])
        kept += [decided[k] for k in method.choose(group, reward_K, lot_K, params).ravel()]

    # Sums in one fixed order, so that the same samples give the same bits wherever they lie.
    kept.sort(key=lambda row: (data.problem_N[row], data.sample_N[row]))
    reward_N = filled["reward"][kept]
    filled["weight"][kept] = method.advantage(reward_N, params)

    accuracy = [filled["ref_acc"][rows[0]] for rows in groups.values()]
    wrong_N = data.decided_N & ~data.correct_N
    return filled, WeightReport(
        problems=len(groups),
        samples=n,
        kept=len(kept),
        wrong=int(wrong_N.sum()),
        wrong_positive=int((wrong_N & (np.nan_to_num(filled["weight"]) > 0)).sum()),
        truncated=int(data.truncated_N.sum()),
        empty=int((data.length_N == 0).sum()),
        undecided=int((~data.decided_N).sum()),
        all_right=accuracy.count(1.0),
        all_wrong=accuracy.count(0.0),
        reward_std=float(method.bounded(reward_N, params).std()) if kept else 0.0,
    )


def _lots(seed: int, problem: str, samples: list[int]) -> np.ndarray:
    """Returns each sample's place, from 0, in its problem's shuffle."""
    digests = [hashlib.sha256(f"{seed}/{problem}/{sample}".encode()).digest() for sample in samples]
    lots = np.empty(len(samples), int)
    lots[sorted(range(len(samples)), key=digests.__getitem__)] = np.arange(len(samples))
    return lots


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
