"""The samples that are trained on: every process knows their lengths, and reads the tokens that it needs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from o1p_jax.config.text import fingerprint
from o1p_jax.data.pool import Pool
from o1p_jax.data.records import TrainingSample
from o1p_jax.data.shards import ShardedTable

_COLUMNS = ("problem_id", "sample_idx", "prompt_ids", "completion_ids")


@dataclass(frozen=True)
class TrainingSet:
    """Kept samples in a fixed order. Each process of a job plans all steps and reads only the samples of its rows."""

    names: Sequence[tuple[str, int]]
    """The problem_id and sample_idx of each sample."""
    prompt_tokens: Sequence[int]
    completion_tokens: Sequence[int]
    digests: Sequence[str]
    """For each sample, the SHA-256 of its name and its tokens."""
    weights: Sequence[float]
    read: Callable[[Collection[int]], Mapping[int, TrainingSample]]
    """The function reads the samples with the given numbers."""
    told: Callable[[], Mapping[int, np.ndarray]]
    """The function reads the sampler's log-probabilities of the completions' tokens, by sample, where it told them."""
    units: Sequence[tuple[int, ...]]
    """The samples that must share a row, side by side, all in as many: single ones, or pairs for example."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> list[int]:
        """For each sample, the number of tokens of prompt and completion together."""
        return [p + c for p, c in zip(self.prompt_tokens, self.completion_tokens, strict=True)]

    @property
    def unit_lengths(self) -> list[int]:
        """For each unit, the number of tokens of its samples together."""
        return unit_lengths(self.lengths, self.units)

    @classmethod
    def of(cls, samples: Sequence[TrainingSample], unit: int = 1) -> "TrainingSet":
        """Makes a training set of samples that are in memory already; as many as `unit` in a row are a unit."""
        return cls(
            [(s.problem_id, s.sample_idx) for s in samples],
            [len(s.prompt_ids) for s in samples],
            [len(s.completion_ids) for s in samples],
            [_digest(s) for s in samples],
            [s.weight for s in samples],
            lambda numbers: {i: samples[i] for i in numbers},
            dict,
            _chunks(range(len(samples)), unit),
        )

    @classmethod
    def of_pool(cls, pool: Pool, weights: ShardedTable, unit: int = 1) -> "TrainingSet":
        """Makes a training set of the pool's samples that have a weight, in order of (problem_id, sample_idx).

        `weights` is a table keyed like the samples; where units have more than one sample, its `places` tell them. One
        shard of the samples is in memory at a time, in `read` too.
        """
        table = weights.read(["problem_id", "sample_idx", "weight", "places"])
        table = table.filter(pc.is_valid(table["weight"]))
        weight = {
            (problem, k): w for problem, k, w in zip(*(column.to_pylist() for column in table.columns[:3]), strict=True)
        }
        problems = pool.problems.read(["problem_id", "prompt_ids"])

        def kept(shard: int) -> list[TrainingSample]:
            return _kept(pool.read_shard(shard, _COLUMNS, problems=problems), weight)

        found = []
        for shard in range(pool.samples.shards):
            for sample in kept(shard):
                name = sample.problem_id, sample.sample_idx
                sizes = len(sample.prompt_ids), len(sample.completion_ids)
                found.append((name, *sizes, _digest(sample), sample.weight, shard))
        found.sort()
        names = [name for name, *_ in found]

        def read(numbers: Collection[int]) -> dict[int, TrainingSample]:
            wanted = {names[i]: i for i in numbers}
            samples = {}
            for shard in sorted({found[i][-1] for i in numbers}):
                for sample in kept(shard):
                    if (i := wanted.get((sample.problem_id, sample.sample_idx))) is not None:
                        samples[i] = sample
            return samples

        def told() -> dict[int, np.ndarray]:
            number = {name: i for i, name in enumerate(names)}
            values = {}
            for shard in sorted({shard for *_, shard in found}):
                for row in pool.read_shard(shard, ("problem_id", "sample_idx", "logprobs")).to_pylist():
                    i = number.get((row["problem_id"], row["sample_idx"]))
                    if i is not None and row["logprobs"] is not None:
                        values[i] = np.asarray(row["logprobs"], np.float32)
            return values

        units = _chunks(range(len(names)) if unit == 1 else _in_places(names, table), unit)
        return cls(
            names,
            [sample[1] for sample in found],
            [sample[2] for sample in found],
            [sample[3] for sample in found],
            [sample[4] for sample in found],
            read,
            told,
            units,
        )


def unit_lengths(lengths: Sequence[int], units: Sequence[Sequence[int]]) -> list[int]:
    """Returns, for each unit of samples, the sum of their lengths."""
    return [sum(lengths[i] for i in unit) for unit in units]


def _chunks(samples: Iterable[int], unit: int) -> list[tuple[int, ...]]:
    """Returns the samples in units of as many as `unit`."""
    return list(zip(*[iter(samples)] * unit, strict=True))


def _in_places(names: Sequence[tuple[str, int]], weights: pa.Table) -> list[int]:
    """Returns the samples in the order of their problems and places, as often as they have places."""
    number = {name: i for i, name in enumerate(names)}
    keys = zip(*(weights[column].to_pylist() for column in ("problem_id", "sample_idx", "places")), strict=True)
    placed = [(problem, place, number[problem, k]) for problem, k, places in keys for place in places]
    return [i for *_, i in sorted(placed)]


def _kept(shard: pa.Table, weight: Mapping[tuple[str, int], float]) -> list[TrainingSample]:
    """Returns the samples of a shard (with `_COLUMNS`) that have a weight."""
    names = zip(shard["problem_id"].to_pylist(), shard["sample_idx"].to_pylist(), strict=True)
    shard = shard.filter(pa.array([name in weight for name in names], pa.bool_()))
    names = zip(shard["problem_id"].to_pylist(), shard["sample_idx"].to_pylist(), strict=True)
    ids = zip(_arrays(shard["prompt_ids"]), _arrays(shard["completion_ids"]), strict=True)
    return [
        TrainingSample(
            problem_id=problem,
            sample_idx=k,
            prompt_ids=prompt,
            completion_ids=completion,
            weight=weight[problem, k],
        )
        for (problem, k), (prompt, completion) in zip(names, ids, strict=True)
    ]


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Returns the lists of a column as int32 arrays, copied: views would keep the whole shard in memory."""
    lists = column.combine_chunks()
    values_N = lists.values.to_numpy()
    return [values_N[start:end].astype(np.int32) for start, end in pairwise(lists.offsets.to_pylist())]


def _digest(sample: TrainingSample) -> str:
    prompt, completion = (np.asarray(ids).tolist() for ids in (sample.prompt_ids, sample.completion_ids))
    return fingerprint([sample.problem_id, sample.sample_idx, prompt, completion])
