"""Log-probabilities of the reference model are computed once by this project's own model and kept in Parquet.

The sampler's log-probabilities are no substitute: under top_p or top_k they are renormalised over the kept tokens.
"""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax.config.text import fingerprint
from o1p_jax.devices import processes
from o1p_jax.runtime import progress
from o1p_jax.runtime.errors import CorruptData
from o1p_jax.runtime.files import read_summed, write_with_sum
from o1p_jax.training.packing import Batch, Samples, assemble, most_segments, rows_at, samples_at
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.shapes import Packed, Packer, Shape

SAMPLES_PER_PART = 256  # what a killed run computes again at most

_SCHEMA = pa.schema([("problem_id", pa.string()), ("sample_idx", pa.int32()), ("logprobs", pa.list_(pa.float32()))])


class References:
    """The reference model's log-probabilities of the samples' completions, in parts of `SAMPLES_PER_PART` samples."""

    def __init__(
        self, samples: TrainingSet, packer: Packer, local_rows: Sequence[Sequence[int]], used: Collection[int]
    ):
        """Plans the parts of the samples with the numbers `used`.

        Of a microbatch of each shape this process assembles the rows `local_rows`.
        """
        self._samples, self._packer, self._here = samples, packer, local_rows
        lengths, ordered = samples.lengths, sorted(used)
        self._numbers = [ordered[n : n + SAMPLES_PER_PART] for n in range(0, len(ordered), SAMPLES_PER_PART)]
        """For each part, its samples."""
        self._parts: list[Packed] = []
        """For each part, its microbatches."""
        for numbers in self._numbers:
            packed = packer.pack([lengths[i] for i in numbers])
            self._parts.append(
                [[[[numbers[n] for n in row] for row in rows] for rows in of_shape] for of_shape in packed]
            )
        # Of all parts: another number would be another shape, and another compilation.
        self._segments = [
            most_segments(rows for part in self._parts for rows in part[s]) for s in range(len(local_rows))
        ]

    @property
    def wanted(self) -> set[int]:
        """The samples whose tokens this process needs to compute all parts."""
        return samples_at(self._parts, self._here)

    def compute(
        self, mine: Samples, folder: Path, made_by: dict, logprobs: Callable[[Batch, Shape], np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Returns float32 log-probabilities (nats) of each sample's completion tokens, by the sample's index.

        `logprobs` maps a batch of one microbatch of a shape, with this process's rows, to all of [R, L]. Parts that are
        in `folder` already are read if their checksums hold; else they are computed again. A part's name tells what
        made it (`made_by`) and its samples' tokens, so that trainings with other weights can share the folder.
        """
        found: dict[int, np.ndarray] = {}
        with progress.track("reference log-probs", total=sum(map(len, self._numbers)), unit="samples") as bar:
            for numbers, part in zip(self._numbers, self._parts, strict=True):
                key = fingerprint([made_by, [self._samples.digests[i] for i in numbers]])
                path = folder / f"part-{key[:16]}.parquet"
                values = _read(path)
                if not processes.agreed(values is not None) or values is None:
                    by_index = self._compute(part, mine, logprobs)
                    values = [by_index[i] for i in numbers]
                    if processes.leader():
                        _write(path, [self._samples.names[i] for i in numbers], values)
                found |= zip(numbers, values, strict=True)
                bar.advance(len(numbers))
        return found

    def _compute(
        self, part: Packed, mine: Samples, logprobs: Callable[[Batch, Shape], np.ndarray]
    ) -> dict[int, np.ndarray]:
        values = {}
        for shape, of_shape, here, segments in zip(self._packer.shapes, part, self._here, self._segments, strict=True):
            local = Shape(len(here), shape.length)
            for rows in of_shape:
                logprobs_RL = logprobs(assemble(mine, None, rows_at([rows], here), local, 1, segments), shape)
                for r, row in enumerate(rows):
                    end = 0
                    for i in row:
                        answer = end + self._samples.prompt_tokens[i]
                        end = answer + self._samples.completion_tokens[i]
                        values[i] = logprobs_RL[r, answer - 1 : end - 1]
        return values


def _write(path: Path, names: Sequence[tuple[str, int]], values: list[np.ndarray]) -> None:
    columns = [[problem for problem, _ in names], [k for _, k in names], values]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), _SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_with_sum(path, buffer.getvalue())


def read_part(path: Path) -> pa.Table:
    """Returns a part's rows. Raises CorruptData where they do not read back."""
    try:
        table = pq.read_table(pa.BufferReader(read_summed(path)))
    except (CorruptData, pa.ArrowException, OSError):
        table = None
    if table is None or not table.schema.equals(_SCHEMA):
        raise CorruptData(f"{path}: damaged; the next start computes it again")
    return table


def _read(path: Path) -> list[np.ndarray] | None:
    """Reads a part's values; returns None where the part must be computed."""
    if not path.exists():
        return None
    try:
        table = read_part(path)
    except CorruptData:
        progress.say(f"{path}: damaged; computing it again")
        return None
    return [np.asarray(v.values, np.float32) for v in table["logprobs"]]
