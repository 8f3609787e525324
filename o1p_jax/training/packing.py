"""What every step of a run trains on: samples packed into rows, rows into microbatches of a few shapes, as arrays.

Legend: A microbatches of one shape in a step, R rows a microbatch, L token slots a row, M segments (samples) a row at
most.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from o1p_jax.config.tree import BatchConfig
from o1p_jax.data.records import TrainingSample
from o1p_jax.runtime.errors import BadInput
from o1p_jax.training.samples import unit_lengths
from o1p_jax.training.shapes import Packed, Packer, Room, Rows, Shape, Shapes

Samples = Mapping[int, TrainingSample] | Sequence[TrainingSample]
"""Samples by index; those that are needed suffice."""
Values = Mapping[int, np.ndarray] | Sequence[np.ndarray]
"""An array for each sample, by the sample's index."""
Units = Sequence[tuple[int, ...]]
"""Samples, by index, that must share a row: units of one size. A sample may be in several."""


_FEWEST = 2
"""A is at least so much: XLA takes what does not depend on the loop's counter out of the loop over microbatches, and
of arrays with a single one that is all of the work, which is then done by steps without such a microbatch as well.
Where each step is one microbatch of one shape, there is no such step, and no loop."""


class Batch(NamedTuple):
    """One microbatch, or with a leading axis A all those of a step that have one shape: NumPy or jax arrays."""

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

    packed: list[Packed]
    """For each step, its microbatches."""
    packer: Packer
    microbatches: tuple[int, ...]
    """A: for each shape, as many as the step with the most takes, or more; steps leave the last ones empty."""
    segments: tuple[int, ...]
    """M: for each shape, the most samples that a row holds; a multiple of a unit's number of them."""
    lengths: list[int]
    """The samples' lengths, for each epoch anew."""

    @property
    def tokens(self) -> int:
        """Tokens of all steps together."""
        return sum(self.lengths)

    @property
    def shapes(self) -> Shapes:
        """The shapes of microbatches."""
        return self.packer.shapes

    @property
    def slots(self) -> int:
        """Token slots that all steps together compute."""
        return sum(map(self.packer.slots, self.packed))

    @property
    def fill(self) -> float:
        """Share of the computed token slots that hold a token."""
        return self.tokens / self.slots

    @property
    def text(self) -> str:
        """The shapes for people, each with the most microbatches of it in a step."""
        shown = zip(self.microbatches, self.shapes, strict=True)
        return ", ".join(f"up to {count} x {shape.rows} rows x {shape.length:,} tokens" for count, shape in shown)


def check_fits(lengths: Sequence[int], room: Room) -> None:
    """Raises BadInput where there is no sample, or one that a row has no room for: samples are never cut.

    `lengths` are those of what must share a row: samples, or units of them.
    """
    if not len(lengths):
        raise BadInput("no samples to train on; look at the run's weights")
    longest = max(lengths)
    if longest > room.row_length:
        longer = sum(length > room.row_length for length in lengths)
        raise BadInput(
            f"batch.row_length={room.row_length}: {longer} of {len(lengths)} samples are longer, up to {longest} "
            "tokens; raise it"
        )
    if longest > room.tokens * room.parts:
        raise BadInput(
            f"batch.tokens_per_device={room.tokens}: the longest sample, or pair, has {longest} tokens, which "
            f"{room.parts} devices hold together; raise it to {-(-longest // room.parts)}, or take a mesh with more "
            "devices along context"
        )


def make_steps(
    lengths: Sequence[int], batch: BatchConfig, epochs: int, seed: int, room: Room, units: Units | None = None
) -> Steps:
    """Shuffles the units anew each epoch, and gives each step `batch.sequences` samples, the epoch's last the rest.

    `lengths` are the samples', in tokens, prompt included. A unit's samples lie side by side in one row; `units` left
    out: each sample is one. Which samples a step trains on does not depend on `room`, the limits of the microbatches
    that the step is computed in.
    """
    units = [(i,) for i in range(len(lengths))] if units is None else units
    size, of_unit = len(units[0]), unit_lengths(lengths, units)
    a_step = batch.sequences // size
    chosen = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(units)).tolist()
        chosen += [order[start : start + a_step] for start in range(0, len(order), a_step)]
    of_steps = [[of_unit[u] for u in step] for step in chosen]
    packer = Packer.choose(of_steps, room)
    packed = [
        [
            [[[i for n in row for i in units[step[n]]] for row in rows] for rows in microbatches]
            for microbatches in packer.pack(of_step)
        ]
        for step, of_step in zip(chosen, of_steps, strict=True)
    ]
    by_shape = list(zip(*packed, strict=True))
    fewest = 1 if all(sum(map(len, step)) == 1 for step in packed) and len(by_shape) == 1 else _FEWEST
    return Steps(
        packed=packed,
        packer=packer,
        microbatches=tuple(max(fewest, *map(len, of_shape)) for of_shape in by_shape),
        segments=tuple(max(size, most_segments(rows for step in of_shape for rows in step)) for of_shape in by_shape),
        lengths=[lengths[i] for step in chosen for u in step for i in units[u]],
    )


def rows_at(microbatches: Iterable[Rows], local_rows: Sequence[int]) -> list[Rows]:
    """Returns those rows of the microbatches that lie at `local_rows`."""
    return [[rows[r] for r in local_rows] for rows in microbatches]


def samples_at(steps: Iterable[Packed], local_rows: Sequence[Sequence[int]]) -> set[int]:
    """Returns the samples of the steps that lie in those rows of microbatches that `local_rows` has for each shape."""
    return {
        i
        for step in steps
        for microbatches, here in zip(step, local_rows, strict=True)
        for rows in rows_at(microbatches, here)
        for row in rows
        for i in row
    }


def most_segments(microbatches: Iterable[Rows]) -> int:
    """Returns the most samples in a row, at least 1."""
    return max((len(row) for rows in microbatches for row in rows), default=1)


def step_iterator(
    samples: Samples, ref_logprobs: Values, steps: Steps, local_rows: Sequence[Sequence[int]], done: int = 0
) -> Iterator[tuple[Batch, ...]]:  # fmt: skip
    """Returns an iterator over the steps' batches, one for each shape, after the first `done` steps.

    Of each microbatch, a batch holds only its shape's rows of `local_rows`. A step's batches depend on the step's
    number alone, so that a run can go on after any step.
    """
    import grain  # which a machine that only measures may lack

    def build(step: Packed) -> tuple[Batch, ...]:
        by_shape = zip(step, local_rows, steps.shapes, steps.microbatches, steps.segments, strict=True)
        return tuple(
            assemble(samples, ref_logprobs, rows_at(group, here), Shape(len(here), shape.length), count, segments)
            for group, here, shape, count, segments in by_shape
        )

    dataset = grain.MapDataset.source(steps.packed[done:]).map(build)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


def assemble(
    samples: Samples, ref_logprobs: Values | None, microbatches: Sequence[Rows], shape: Shape, count: int, segments: int
) -> Batch:
    """Returns the arrays of microbatches of one shape, [A, R, ...] with A = `count`: those that are missing are empty.

    `ref_logprobs[i]` has one value a completion token of sample i.
    """
    tokens, sequences = (count, *shape), (count, shape.rows, segments)
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
    for a, r in ((a, r) for a, rows in enumerate(microbatches) for r in range(len(rows))):
        start = 0
        for m, i in enumerate(microbatches[a][r]):
            ids = np.concatenate([samples[i].prompt_ids, samples[i].completion_ids])
            end = start + len(ids)
            # The position before a token predicts it: the first completion token's is the prompt's last.
            answer = slice(start + len(samples[i].prompt_ids) - 1, end - 1)
            batch.ids_RL[a, r, start:end] = ids
            batch.segments_RL[a, r, start:end] = m + 1
            batch.positions_RL[a, r, start:end] = np.arange(len(ids))
            batch.targets_RL[a, r, start : end - 1] = ids[1:]
            batch.mask_RL[a, r, answer] = True
            if ref_logprobs is not None:
                batch.ref_logprobs_RL[a, r, answer] = ref_logprobs[i]
            batch.weights_RM[a, r, m] = samples[i].weight
            batch.present_RM[a, r, m] = True
            start = end
    return batch
