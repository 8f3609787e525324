"""From sampled to graded to weighed rollouts. Each stage fills a new folder with the same shards, and can go on after
a kill: what a shard holds depends on the source alone.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from o1p_jax.data.rollouts import SCHEMA, RolloutFolder
from o1p_jax.methods import method_of
from o1p_jax.methods.base import Group, Params
from o1p_jax.methods.own_reward import reward_function, source_digest
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.fields import WEIGHTS
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
    """Of the kept rewards, within the method's limits; 0 makes every z-score 0."""

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


def weigh_rollouts(src: Path, dst: Path, params: Params, seed: int) -> WeightReport:
    """Copies the graded rollouts of `src` to `dst` with means, reward and weight filled in, by the method of `params`.

    The means Lbar and Abar are those of each problem's decided samples. The method chooses which of them are kept; the
    lots that it may draw are a hash of (seed, problem, sample), so that neither order nor other problems matter. The
    weights come from the rewards of all kept samples of the folder. Raises BadInput when nothing can be kept, and
    where a user's reward fails.
    """
    source = RolloutFolder(src)
    facts = {f"method.{f.name}": getattr(params, f.name) for f in fields(params) if WEIGHTS in f.metadata["affects"]}
    facts |= {"stage": "weighed", "weigh_seed": seed, "reward_source": source_digest(params)}
    folder = RolloutFolder.create(dst, source.metadata | facts, source.shards)
    filled, report = _weigh(_columns(source), params, seed)
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


def _weigh(data: _Columns, params: Params, seed: int) -> tuple[dict[str, np.ndarray], WeightReport]:
    """The four columns to fill in (NaN: null), and the report."""
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
    """Each sample's place in its problem's shuffle, from 0."""
    digests = [hashlib.sha256(f"{seed}/{problem}/{sample}".encode()).digest() for sample in samples]
    lots = np.empty(len(samples), int)
    lots[sorted(range(len(samples)), key=digests.__getitem__)] = np.arange(len(samples))
    return lots


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def _with(table: pa.Table, **columns: list) -> pa.Table:
    for name, values in columns.items():
        field = SCHEMA.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table
