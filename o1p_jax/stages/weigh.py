"""The stage that weighs a pool's graded samples: what a sample is worth to the method, and whether it is trained on."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from o1p_jax.config.text import plain
from o1p_jax.config.tree import TrainingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.shards import META, ShardedTable
from o1p_jax.methods import method_of
from o1p_jax.methods.base import Group, Params, Scored
from o1p_jax.methods.own_reward import rewards_of
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import atomic_folder, read_summed_json, write_json_with_sum
from o1p_jax.runtime.progress import say

WEIGHTS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample_idx", pa.int32()),
        (
            "ref_mean_len",
            pa.float64(),
        ),  # Lbar: mean tokens over the reference's samples of the problem; an empty one counts as one token
        ("ref_acc", pa.float64()),  # Abar: share of them that is correct
        ("reward", pa.float64()),  # as the method gives it, neither clipped nor normalised
        ("weight", pa.float64()),  # the advantage; null: not kept for training
        # S u + s for each unit u of its problem in which the sample has place s, of S; null: S is 1, or not kept.
        ("places", pa.list_(pa.int32())),
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
    """Samples without a token: never kept, and one token long in the means."""
    too_long: int
    """Decided samples that a row has no room for: never kept, but counted in the means."""
    parted: int
    """Units of samples, pairs for example, that a row has no room for as a whole: left out."""
    undecided: int
    """Samples whose grading timed out or whose gold answer can't be read; neither kept nor counted in the means."""
    all_right: int
    """Problems whose samples are all correct: only length tells them apart."""
    all_wrong: int
    """Problems without a correct sample."""
    left_out: int
    """Problems of which no sample is kept."""
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
            "problems left out": self.left_out,
            "solutions left out because a row has no room for them": self.too_long,
        }

    def for_metrics(self) -> dict[str, float]:
        """Returns the figures that stand beside each step's metrics, by name."""
        return {"wrong_positive": self.wrong_positive_share, "too_long": self.too_long}

    def line(self) -> str:
        """Returns the report as one line for people."""
        return (
            f"weigh: kept {self.kept} of {self.samples} samples of {self.problems} problems ({self.all_right} all "
            f"right, {self.all_wrong} all wrong, {self.left_out} left out), reward std {self.reward_std:.4f}, "
            f"{self.wrong} wrong, "
            f"{self.wrong_positive} wrong with a positive weight ({self.wrong_positive_share:.1%} of the kept), "
            f"{self.truncated} truncated, {self.empty} empty, {self.too_long} longer than a row"
            f"{f', {self.parted} units longer than a row' if self.parted else ''}, {self.undecided} undecided by the "
            "grader"
        )


def weigh(
    pool: Pool,
    grades: ShardedTable,
    cfg: TrainingConfig,
    made_by: Mapping[str, Any],
    out: Path,
    means: Mapping[str, tuple[float, float]] | None = None,
) -> WeightReport:
    """Writes each sample's means, reward and weight by the method of `cfg` to the folder `out`.

    The means Lbar and Abar are those of each problem's decided samples, or the reference's, `means` by problem; a
    problem without them counts as undecided. The method chooses which samples are kept, of those that a row has room
    for; the lots that it may draw are a hash of (seed, problem, sample), so that neither order nor other problems
    matter. The weights come from the rewards of all kept samples of the pool. A folder that was made by the same
    `made_by` (JSON values) stays as it is. Raises BadInput where samples are longer than a row and may not be dropped,
    where nothing can be kept or all weights are 0, and where a user's reward fails.
    """
    if (report := _earlier(out, made_by)) is not None:
        say(report.line())
        return report
    data = _columns(pool, grades, cfg.method.k, cfg.batch.hold_out, means)
    filled, report = _weigh(data, cfg.method, cfg.seed, cfg.batch.row_length)
    say(report.line())
    _check_use(pool, data, filled, report, cfg)
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
    try:
        return WeightReport(**read_summed_json(out / _REPORT))
    except FileNotFoundError:
        raise CorruptData(f"{out / _REPORT}: is missing; remove {out}, which is made again within seconds") from None


def _check_use(
    pool: Pool, data: "_Columns", filled: Mapping[str, Any], report: WeightReport, cfg: TrainingConfig
) -> None:
    """Raises BadInput, with what to change, where the weights of the samples are not such as can be trained on."""
    if report.too_long and cfg.batch.too_long == "refuse":
        raise BadInput(
            f"batch.row_length={cfg.batch.row_length}: {report.too_long} of {report.samples} samples are longer, up to "
            f"{data.tokens_N.max()} tokens with their prompts; raise it, or say batch.too_long=drop, which leaves them "
            "out"
        )
    if report.parted and cfg.batch.too_long == "refuse":
        raise BadInput(
            f"batch.row_length={cfg.batch.row_length}: {report.parted} units of {cfg.method.UNIT} samples, which must "
            "share a row, are longer; raise it, or say batch.too_long=drop, which leaves them out"
        )
    if report.kept == 0:
        raise BadInput(
            f"{pool.path}: no sample can be trained on: of {report.samples}, {report.empty} are empty, "
            f"{report.undecided} undecided by the grader, {report.too_long} longer than batch.row_length="
            f"{cfg.batch.row_length}, {report.truncated} cut off by max_tokens, and of {report.problems} problems "
            f"{report.all_right} have only right ones, {report.all_wrong} only others; look at its grades and "
            f"completions, or choose another method than {cfg.method.name}"
        )
    if not np.nan_to_num(filled["weight"]).any():
        raise BadInput(
            f"{pool.path}: the weights of all {report.kept} kept samples are 0, so that training would change nothing: "
            f"no sample is better than another to method={cfg.method.name} ({report.truncated} of {report.samples} "
            f"samples were cut off at max_tokens, {report.all_wrong} of {report.problems} problems have no right one, "
            f"{report.all_right} no wrong one); sample with more max_tokens, a higher temperature or more samples a "
            "problem, or take other problems"
        )


def _earlier(out: Path, made_by: Mapping[str, Any]) -> WeightReport | None:
    """Returns the report of an earlier start; None where there is none, or `made_by` has changed since."""
    if not (out / META).is_file():
        return None
    return read_report(out) if read_weights(out).metadata == plain({**made_by, "shards": 1}) else None


@dataclass(frozen=True)
class _Columns:
    """The values that weighing needs of all N samples, by problem and number."""

    problem_N: list[str]
    sample_N: list[int]
    length_N: np.ndarray
    tokens_N: np.ndarray
    """Tokens of prompt and completion together."""
    correct_N: np.ndarray
    counted_N: np.ndarray
    """The sample is one of the first `method.k` of its problem, which is not held out."""
    decided_N: np.ndarray
    """The sample counts, and is graded right or wrong."""
    truncated_N: np.ndarray
    means: Mapping[str, tuple[float, float]] | None
    """Lbar and Abar of the reference's samples; None: those of these samples."""

    def group(self, rows: list[int] | np.ndarray) -> Group:
        """Returns the samples with these numbers as a method sees them."""
        return Group(self.length_N[rows], self.correct_N[rows], self.truncated_N[rows])


def held_out(problem: str, share: float) -> bool:
    """Returns whether the problem with this id is among the `share` of all problems that is not trained on."""
    digest = hashlib.sha256(f"held out/{problem}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _columns(
    pool: Pool,
    grades: ShardedTable,
    k: int | None,
    hold_out: float,
    means: Mapping[str, tuple[float, float]] | None,
) -> _Columns:
    table = pool.read(["problem_id", "sample_idx", "completion_ids", "grade", "finish_reason"], grades)
    table = table.append_column("length", pc.list_value_length(table["completion_ids"])).drop_columns("completion_ids")
    table = table.sort_by([("problem_id", "ascending"), ("sample_idx", "ascending")])
    length_N = table["length"].to_numpy()
    grade_N = np.array(table["grade"].to_pylist(), object)
    finish_N = np.array(table["finish_reason"].to_pylist(), object)
    bad_gold = set(np.array(table["problem_id"].to_pylist(), object)[grade_N == "bad_gold"])
    problem_N = table["problem_id"].to_pylist()
    problems = pool.problems.read(["problem_id", "prompt_ids"])
    prompts = pc.list_value_length(problems["prompt_ids"]).to_pylist()
    prompt_tokens = dict(zip(problems["problem_id"].to_pylist(), prompts, strict=True))
    counted_N = np.ones(len(problem_N), bool) if k is None else table["sample_idx"].to_numpy() < k
    if hold_out:
        counted_N = counted_N & ~np.array([held_out(problem, hold_out) for problem in problem_N], bool)
    return _Columns(
        problem_N=problem_N,
        sample_N=table["sample_idx"].to_pylist(),
        length_N=length_N,
        tokens_N=length_N + np.array([prompt_tokens[p] for p in problem_N]),
        correct_N=grade_N == "correct",
        counted_N=counted_N,
        decided_N=counted_N
        & (grade_N != "timeout")
        & np.array([p not in bad_gold and (means is None or p in means) for p in problem_N], bool),
        truncated_N=finish_N == "length",
        means=means,
    )


def _weigh(data: _Columns, params: Params, seed: int, row_length: int) -> tuple[dict[str, Any], WeightReport]:
    """Returns the columns of `WEIGHTS` that weighing fills in (NaN stands for null), and the report."""
    method, n = method_of(params), len(data.problem_N)
    filled: dict[str, Any] = {name: np.full(n, np.nan) for name in ("ref_mean_len", "ref_acc", "reward", "weight")}
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(data.counted_N).tolist():
        rows_of.setdefault(data.problem_N[row], []).append(row)
    decided = {problem: [row for row in rows if data.decided_N[row]] for problem, rows in rows_of.items()}
    groups = {
        problem: data.group(rows)._replace(reference=None if data.means is None else data.means[problem])
        for problem, rows in decided.items()
        if rows
    }

    units: list[list[int]] = []
    for (problem, group), reward_K in zip(groups.items(), rewards_of(method, params, groups), strict=True):
        rows = decided[problem]
        filled["ref_mean_len"][rows_of[problem]] = group.mean_length
        filled["ref_acc"][rows_of[problem]] = group.accuracy
        filled["reward"][rows] = reward_K
        lot_K = _lots(seed, problem, [data.sample_N[row] for row in rows])
        usable_K = (group.length_K > 0) & (data.tokens_N[rows] <= row_length)
        chosen = method.choose(group, reward_K, lot_K, usable_K, params)
        units += sorted([rows[k] for k in unit] for unit in chosen.tolist())
    whole = [unit for unit in units if data.tokens_N[unit].sum() <= row_length]

    # In the order of the rows, so that sums have the same bits wherever the samples lie.
    row_N = np.flatnonzero(data.decided_N)
    scored = Scored(
        filled["reward"][row_N],
        np.unique([data.problem_N[row] for row in row_N], return_inverse=True)[1],
        data.group(row_N),
        np.searchsorted(row_N, np.array(whole, int).reshape(-1, params.UNIT)),
    )
    kept = row_N[scored.kept_n]
    filled["weight"][kept] = method.advantage(scored, params)[scored.kept_n]
    filled["places"] = _places(data, whole) if params.UNIT > 1 else [None] * n

    right = [group.correct_K for group in groups.values()]
    wrong_N = data.decided_N & ~data.correct_N
    return filled, WeightReport(
        problems=len(rows_of),
        samples=int(data.counted_N.sum()),
        kept=len(kept),
        wrong=int(wrong_N.sum()),
        wrong_positive=int((wrong_N & (np.nan_to_num(filled["weight"]) > 0)).sum()),
        truncated=int((data.counted_N & data.truncated_N).sum()),
        empty=int((data.counted_N & (data.length_N == 0)).sum()),
        too_long=int((data.decided_N & (data.tokens_N > row_length)).sum()),
        parted=len(units) - len(whole),
        undecided=int((data.counted_N & ~data.decided_N).sum()),
        all_right=sum(bool(right_K.all()) for right_K in right),
        all_wrong=sum(not right_K.any() for right_K in right),
        left_out=len(rows_of) - len({data.problem_N[row] for row in kept}),
        reward_std=float(method.bounded(filled["reward"][kept], params).std()) if len(kept) else 0.0,
    )


def _places(data: _Columns, units: list[list[int]]) -> list[list[int] | None]:
    """Returns, for each sample, its places among those of all units of its problem; None where it has none."""
    taken: Counter[str] = Counter()
    places: dict[int, list[int]] = {}
    for row in (row for unit in units for row in unit):
        places.setdefault(row, []).append(taken[data.problem_N[row]])
        taken[data.problem_N[row]] += 1
    return [places.get(row) for row in range(len(data.problem_N))]


def _lots(seed: int, problem: str, samples: list[int]) -> np.ndarray:
    """Returns each sample's place, from 0, in its problem's shuffle."""
    # Another hash than the samples' seeds come from: those that are kept must not be those with the smallest seeds.
    digests = [hashlib.sha256(f"lot/{seed}/{problem}/{sample}".encode()).digest() for sample in samples]
    lots = np.empty(len(samples), int)
    lots[sorted(range(len(samples)), key=digests.__getitem__)] = np.arange(len(samples))
    return lots


def _nullable(values: np.ndarray | list) -> list:
    return values if isinstance(values, list) else [None if np.isnan(v) else float(v) for v in values]
