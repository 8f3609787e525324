"""Samples are packed into batches: whole samples in rows of one length, rows in steps of one shape.

Packing is first-fit-decreasing (1.01 slots a token over 256 lognormal lengths, where padding needs 3.5).

Legend: A microbatches a step, R rows a microbatch, L tokens a row, M segments (samples) a row at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np

from o1p_jax.config.tree import BatchConfig
from o1p_jax.data.records import TrainingSample
from o1p_jax.runtime.errors import BadInput
from o1p_jax.training.samples import TrainingSet

Rows = list[list[int]]
"""Rows of sample indices."""
Samples = Mapping[int, TrainingSample] | Sequence[TrainingSample]
"""Samples by index; those that are needed suffice."""
Values = Mapping[int, np.ndarray] | Sequence[np.ndarray]
"""An array for each sample, by the sample's index."""


class Batch(NamedTuple):
    """One microbatch, or with a leading axis A all of a step's: NumPy arrays on the host, jax arrays on devices."""

    ids_RL: Any
    """int32 token ids; 0 in padding."""
    segments_RL: Any
    """int32: 1..M for the row's samples, 0 for padding. Attention stays within a segment."""
    positions_RL: Any
    """int32 positions, from 0 in each segment."""
    targets_RL: Any
    """int32: the next token of the same segment; 0 where there is none."""
    mask_RL: Any
    """bool: the target is a completion token, so that it counts in the ratio."""
    ref_logprobs_RL: Any
    """float32 log-probability (nats) of the target under the reference model; 0 where mask is False."""
    weights_RM: Any
    """float32 weight (advantage) of segment m + 1."""
    present_RM: Any
    """bool: the row has a segment m + 1."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a training run: what every step trains on, all of it known before the first step."""

    packed: list[Rows]
    """For each step, its rows."""
    microbatches: int
    """A: as many as the fullest step needs; steps that need fewer leave the last microbatches empty."""
    rows: int
    """R: the number of rows of a microbatch."""
    row_length: int
    """L: the number of token slots of a row."""
    segments: int
    """M: the most samples that a row holds."""
    fill: float
    """Share of the used rows' token slots that hold a token."""

    def samples_at(self, local_rows: Sequence[int]) -> set[int]:
        """Returns the samples that lie in the rows `local_rows` of the microbatches of all steps."""
        return {
            i for rows in self.packed for row in rows_of(rows, self.rows, self.microbatches, local_rows) for i in row
        }


def check_fits(samples: TrainingSet, row_length: int) -> None:
    """Raises BadInput where there is no sample, or one that a row has no room for: samples are never cut."""
    if not len(samples):
        raise BadInput("no samples to train on; look at the run's weights")
    if longer := sum(length > row_length for length in samples.lengths):
        raise BadInput(
            f"batch.row_length={row_length}: {longer} of {len(samples)} samples are longer, up to "
            f"{max(samples.lengths)} tokens; raise it"
        )


def make_steps(lengths: Sequence[int], batch: BatchConfig, epochs: int, seed: int, row_multiple: int = 1) -> Steps:
    """Shuffles the samples anew each epoch, and gives each step `batch.sequences` of them, the epoch's last the rest.

    `lengths` are in tokens, prompt included; `row_multiple` is the number of devices that the rows are split over.
    Raises `BadInput` where a microbatch's rows can't be split evenly over these devices.
    """
    if batch.rows_per_microbatch % row_multiple:
        raise BadInput(
            f"batch.rows_per_microbatch={batch.rows_per_microbatch}: must be a multiple of {row_multiple}, the devices "
            "of the mesh that share rows out (replica x fsdp x expert)"
        )
    packed = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths)).tolist()
        for start in range(0, len(order), batch.sequences):
            chosen = order[start : start + batch.sequences]
            rows = pack([lengths[i] for i in chosen], batch.row_length)
            packed.append([[chosen[i] for i in row] for row in rows])
    used = sum(len(rows) for rows in packed) * batch.row_length
    return Steps(
        packed=packed,
        microbatches=-(-max(len(rows) for rows in packed) // batch.rows_per_microbatch),
        rows=batch.rows_per_microbatch,
        row_length=batch.row_length,
        segments=max(len(row) for rows in packed for row in rows),
        fill=epochs * sum(lengths) / used,
    )


def step_iterator(
    samples: Samples, ref_logprobs: Values, steps: Steps, local_rows: Sequence[int], done: int = 0
) -> grain.DatasetIterator[Batch]:  # fmt: skip
    """Returns an iterator over the steps' batches after the first `done` steps.

    Of each microbatch, a batch holds only the rows `local_rows`. A step's batch depends on the step's number alone, so
    that a run can go on after any step, on other devices.
    """

    def build(rows: Rows) -> Batch:
        own = rows_of(rows, steps.rows, steps.microbatches, local_rows)
        shape = steps.microbatches, len(local_rows), steps.row_length, steps.segments
        return assemble(samples, ref_logprobs, own, *shape)

    dataset = grain.MapDataset.source(steps.packed[done:]).map(build)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


def pack(lengths: Sequence[int], row_length: int) -> Rows:
    """Returns rows of indices into `lengths`, none of them longer than `row_length` in all: first-fit-decreasing."""
    rows: Rows = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(row_length)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def rows_of(rows: Rows, microbatch_rows: int, microbatches: int, local_rows: Sequence[int]) -> Rows:
    """Returns those of a step's rows that lie at `local_rows` of its microbatches.

    A place that no row is left for gets an empty row.
    """
    places = [a * microbatch_rows + r for a in range(microbatches) for r in local_rows]
    return [rows[i] if i < len(rows) else [] for i in places]


def assemble(
    samples: Samples, ref_logprobs: Values | None, rows: Rows,
    microbatches: int, rows_per_microbatch: int, row_length: int, segments: int,
) -> Batch:  # fmt: skip
    """Returns the arrays of one step, [A, R, ...]; `ref_logprobs[i]` has one value a completion token of sample i."""
    count = microbatches * rows_per_microbatch
    tokens, sequences = (count, row_length), (count, segments)
    batch = Batch(
        ids_RL=np.zeros(tokens, np.int32),
        segments_RL=np.zeros(tokens, np.int32),
        positions_RL=np.zeros(tokens, np.int32),
        targets_RL=np.zeros(tokens, np.int32),
        mask_RL=np.zeros(tokens, bool),
        ref_logprobs_RL=np.zeros(tokens, np.float32),
        weights_RM=np.zeros(sequences, np.float32),
        present_RM=np.zeros(sequences, bool),
    )
    for r, row in enumerate(rows):
        start = 0
        for m, i in enumerate(row):
            ids = samples[i].prompt_ids + samples[i].completion_ids
            end = start + len(ids)
            # The position before a token predicts it: the first completion token's is the prompt's last.
            answer = slice(start + len(samples[i].prompt_ids) - 1, end - 1)
            batch.ids_RL[r, start:end] = ids
            batch.segments_RL[r, start:end] = m + 1
            batch.positions_RL[r, start:end] = np.arange(len(ids))
            batch.targets_RL[r, start : end - 1] = ids[1:]
            batch.mask_RL[r, answer] = True
            if ref_logprobs is not None:
                batch.ref_logprobs_RL[r, answer] = ref_logprobs[i]
            batch.weights_RM[r, m] = samples[i].weight
            batch.present_RM[r, m] = True
            start = end
    return Batch(*(x.reshape(microbatches, rows_per_microbatch, x.shape[1]) for x in batch))
