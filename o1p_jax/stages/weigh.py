"""From sampled to graded to weighed rollouts. Each stage fills a new folder with the same shards, and can go on after
a kill: what a shard holds depends on the source alone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from o1p_jax.config.tree import MethodConfig
from o1p_jax.data.rollouts import SCHEMA, RolloutFolder
from o1p_jax.methods.o1_pruner import length_harmonizing, normalize
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say


@dataclass(frozen=True, kw_only=True)
class WeightReport:
    """What `weigh_rollouts` found; every count is of samples where not said otherwise."""

    problems: int
    samples: int
    kept: int
    """Trained on: they have a weight."""
    wrong: int
    """Graded wrong or unparsed."""
    wrong_positive: int
    """Kept, wrong, and with a positive weight all the same: short enough to be rewarded."""
    truncated: int
    """Cut off by max_tokens."""
    empty: int
    """Without a token; never kept."""
    undecided: int
    """Grading timed out, or the gold answer can't be read; neither kept nor counted in the means."""
    all_right: int
    """Problems whose samples are all correct: only length tells them apart."""
    all_wrong: int
    """Problems without a correct sample."""
    reward_std: float
    """Of the kept rewards, after clipping; 0 makes every z-score 0."""

    @property
    def wrong_positive_share(self) -> float:
        """Of the kept samples."""
        return self.wrong_positive / self.kept if self.kept else 0.0

    def line(self) -> str:
        return (
            f"weigh: kept {self.kept} of {self.samples} samples of {self.problems} problems ({self.all_right} all "
            f"right, {self.all_wrong} all wrong), reward std {self.reward_std:.4f}, {self.wrong} wrong, "
            f"{self.wrong_positive} wrong with a positive weight ({self.wrong_positive_share:.1%} of the kept), "
            f"{self.truncated} truncated, {self.empty} empty, {self.undecided} undecided by the grader"
        )


def weigh_rollouts(src: Path, dst: Path, method: MethodConfig, seed: int) -> WeightReport:
    """Copies the graded rollouts of `src` to `dst` with means, reward and weight filled in.

    The means Lbar and Abar are those of each problem's decided samples. `method.keep` of them are kept, chosen by a
    hash of (seed, problem, sample), so that neither order nor other problems matter; `normalize` works on all kept
    samples of the folder. Raises BadInput when nothing can be kept.
    """
    source = RolloutFolder(src)
    facts = {
        "stage": "weighed",
        "weigh_seed": seed,
        "lam": method.lam,
        "keep": method.keep,
        "normalization": method.normalization,
        "reward_range": method.reward_range,
        "truncated": method.truncated,
    }
    folder = RolloutFolder.create(dst, source.metadata | facts, source.shards)
    filled, report = _weigh(_columns(source), method, seed)
    say(report.line())
    if report.kept == 0:
        raise BadInput(f"{src}: no sample can be trained on; look at its grade and completion columns")
    missing, start = set(folder.missing_shards()), 0
    for shard in range(source.shards):
        table = source.read_shard(shard)
        rows = slice(start, start + table.num_rows)
        start = rows.stop
        if shard in missing:
            values = {name: _nullable(column[rows]) for name, column in filled.items()}
            folder.write_shard(shard, _with(table, **values))
    return report


@dataclass(frozen=True)
class _Columns:
    """Of all N samples."""

    problem_N: list[str]
    sample_N: list[int]
    length_N: np.ndarray
    correct_N: np.ndarray
    decided_N: np.ndarray
    truncated_N: np.ndarray


def _columns(source: RolloutFolder) -> _Columns:
    import pyarrow.compute as pc

    table = source.read(["problem_id", "sample_idx", "completion_ids", "grade", "finish_reason"])
    if table["grade"].null_count:
        raise BadInput(f"{source.path}: holds samples without a grade; grade them first")
    length_N = pc.list_value_length(table["completion_ids"]).to_numpy()
    grade_N = np.array(table["grade"].to_pylist(), object)
    finish_N = np.array(table["finish_reason"].to_pylist(), object)
    bad_gold = set(np.array(table["problem_id"].to_pylist(), object)[grade_N == "bad_gold"])
    problem_N = table["problem_id"].to_pylist()
    decided_N = (grade_N != "timeout") & np.array([p not in bad_gold for p in problem_N], bool)
    return _Columns(
        problem_N, table["sample_idx"].to_pylist(), length_N, grade_N == "correct", decided_N, finish_N == "length"
    )


def _weigh(data: _Columns, method: MethodConfig, seed: int) -> tuple[dict[str, np.ndarray], WeightReport]:
    """The four columns to fill in (NaN: null), and the report."""
    groups: dict[str, list[int]] = {}
    for row, problem in enumerate(data.problem_N):
        groups.setdefault(problem, []).append(row)

    n = len(data.problem_N)
    filled = {name: np.full(n, np.nan) for name in ("ref_mean_len", "ref_acc", "reward", "weight")}
    eligible_N = data.decided_N & (data.length_N > 0)
    if method.truncated == "drop":
        eligible_N &= ~data.truncated_N
    kept: list[int] = []
    for problem, rows in groups.items():
        decided = [row for row in rows if data.decided_N[row]]
        if not decided:
            continue
        length_K, correct_K = data.length_N[decided], data.correct_N[decided]
        filled["ref_mean_len"][rows] = length_K.mean()
        filled["ref_acc"][rows] = correct_K.mean()
        filled["reward"][decided] = length_harmonizing(length_K, correct_K, method.lam)
        shuffled = sorted(decided, key=lambda row: _lot(seed, problem, data.sample_N[row]))
        kept += [row for row in shuffled if eligible_N[row]][: method.keep]

    # Sums in one fixed order, so that the same samples give the same bits wherever they lie.
    kept.sort(key=lambda row: (data.problem_N[row], data.sample_N[row]))
    reward_N = filled["reward"][kept]
    filled["weight"][kept] = normalize(reward_N, kind=method.normalization, limits=method.reward_range)

    accuracy = [filled["ref_acc"][rows[0]] for rows in groups.values()]
    wrong_N = data.decided_N & ~data.correct_N
    clipped_N = reward_N if method.reward_range is None else reward_N.clip(*method.reward_range)
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
        reward_std=float(clipped_N.std()) if kept else 0.0,
    )


def _lot(seed: int, problem: str, sample: int) -> bytes:
    """A sample's place in its problem's shuffle."""
    return hashlib.sha256(f"{seed}/{problem}/{sample}".encode()).digest()


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def _with(table: pa.Table, **columns: list) -> pa.Table:
    for name, values in columns.items():
        field = SCHEMA.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table
