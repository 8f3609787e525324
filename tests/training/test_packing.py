import numpy as np
import pytest
from drive_train import tiny_samples
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.config.tree import BatchConfig
from o1p_jax.runtime.errors import BadInput
from o1p_jax.training.packing import check_fits, make_steps, samples_at, step_iterator
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.shapes import Room

BATCH = BatchConfig(sequences=16, row_length=48)
ROOM = Room(devices=4, parts=1, tokens=96, row_length=48)


def contents(step) -> list[int]:
    """The samples of a step, in the rows' order."""
    return [i for microbatches in step for rows in microbatches for row in rows for i in row]


@given(st.lists(st.integers(1, 48), min_size=1, max_size=80), st.integers(1, 3), st.integers(0, 5))
def test_steps_give_every_epoch_every_sample_once_in_steps_of_one_size(lengths, epochs, seed):
    steps = make_steps(lengths, BATCH, epochs, seed, ROOM)
    assert steps == make_steps(lengths, BATCH, epochs, seed, ROOM)
    samples = [contents(step) for step in steps.packed]
    a_epoch = -(-len(lengths) // BATCH.sequences)
    assert len(samples) == epochs * a_epoch
    for epoch in range(epochs):
        of_epoch = samples[epoch * a_epoch : (epoch + 1) * a_epoch]
        assert sorted(i for step in of_epoch for i in step) == list(range(len(lengths)))
        assert all(len(step) == BATCH.sequences for step in of_epoch[:-1])
    # One would be computed by steps that do not use it, if there were any.
    only_one = len(steps.shapes) == 1 and all(len(step[0]) == 1 for step in steps.packed)
    assert min(steps.microbatches) >= 2 or (only_one and steps.microbatches == (1,))
    for s in range(len(steps.shapes)):
        assert max(len(step[s]) for step in steps.packed) <= steps.microbatches[s]
        assert (
            max((len(row) for step in steps.packed for rows in step[s] for row in rows), default=0) <= steps.segments[s]
        )
    slots = sum(np.prod(shape) * len(m) for step in steps.packed for m, shape in zip(step, steps.shapes, strict=True))
    assert steps.fill == epochs * sum(lengths) / slots <= 1


@given(st.lists(st.integers(1, 24), min_size=1, max_size=60), st.integers(2, 3), st.integers(1, 2), st.randoms())
def test_units_are_never_parted_and_steps_count_their_samples(lengths, size, epochs, random):
    """A sample may be in several units, as the longest is in both pairs of its problem."""
    units = [tuple(random.choices(range(len(lengths)), k=size)) for _ in range(random.randint(1, 30))]
    room = Room(devices=4, parts=1, tokens=96, row_length=24 * size)
    steps = make_steps(lengths, BatchConfig(sequences=6 * size, row_length=24 * size), epochs, 0, room, units)
    a_epoch = -(-len(units) // 6)
    assert len(steps.packed) == epochs * a_epoch
    for epoch in range(epochs):
        found = []
        for step in steps.packed[epoch * a_epoch : (epoch + 1) * a_epoch]:
            assert len(contents(step)) <= 6 * size
            rows = [(row, shape) for of, shape in zip(step, steps.shapes, strict=True) for m in of for row in m]
            for row, shape in rows:
                assert sum(lengths[i] for i in row) <= shape.length
                found += zip(*[iter(row)] * size, strict=True)
        assert sorted(found) == sorted(units)
    assert all(most % size == 0 and most >= size for most in steps.segments)
    assert steps.tokens == epochs * sum(lengths[i] for unit in units for i in unit)


def test_neither_devices_nor_memory_change_what_a_step_trains_on():
    lengths = np.random.default_rng(0).integers(1, 48, 100).tolist()
    plans = [
        make_steps(lengths, BATCH, 2, 3, Room(devices=devices, parts=parts, tokens=tokens, row_length=48))
        for devices, parts, tokens in ((1, 1, 48), (8, 1, 2048), (2, 4, 100))
    ]
    assert len({plan.shapes for plan in plans}) == 3
    assert all([set(contents(s)) for s in p.packed] == [set(contents(s)) for s in plans[0].packed] for p in plans)


def test_epochs_and_seeds_shuffle_differently():
    lengths = [10] * 32
    steps = make_steps(lengths, BATCH, 2, 0, ROOM)
    assert steps.packed[:2] != steps.packed[2:]
    assert steps.packed != make_steps(lengths, BATCH, 2, 1, ROOM).packed


def test_samples_that_no_row_has_room_for_are_refused():
    samples = TrainingSet.of(tiny_samples(20))
    longest = max(samples.lengths)

    def room(**changes) -> Room:
        return Room(**{"devices": 1, "parts": 1, "tokens": longest, "row_length": longest} | changes)

    check_fits(samples.lengths, room())
    with pytest.raises(BadInput, match=rf"^batch.row_length=20: \d+ of 20 samples .* up to {longest} tokens; raise it"):
        check_fits(samples.lengths, room(row_length=20))
    check_fits(samples.lengths, room(parts=2, tokens=-(-longest // 2)))
    with pytest.raises(BadInput, match=rf"^batch.tokens_per_device=9: .* {longest} tokens, .* raise it to {longest}"):
        check_fits(samples.lengths, room(tokens=9))
    with pytest.raises(BadInput, match="no samples to train on"):
        check_fits([], room())


def test_every_token_stands_where_it_is_predicted():
    samples = tiny_samples(16)
    references = [np.arange(len(s.completion_ids), dtype=np.float32) - 50 * i for i, s in enumerate(samples)]
    steps = make_steps(TrainingSet.of(samples).lengths, BATCH, 1, 0, ROOM)
    here = [range(shape.rows) for shape in steps.shapes]
    [batches] = step_iterator(samples, references, steps, here)
    seen = []
    for batch, shape, microbatches in zip(batches, steps.shapes, steps.packed[0], strict=True):
        assert batch.ids_RL.shape[1:] == shape
        for a, r, row in ((a, r, row) for a, rows in enumerate(microbatches) for r, row in enumerate(rows)):
            for m, i in enumerate(row):
                ids, segments, positions, targets, mask, reference, weights, present = (x[a, r] for x in batch)
                mine = segments == m + 1
                assert tuple(ids[mine]) == samples[i].prompt_ids + samples[i].completion_ids
                assert positions[mine].tolist() == list(range(mine.sum()))
                assert tuple(targets[mine & mask]) == samples[i].completion_ids
                assert reference[mine & mask].tolist() == references[i].tolist()
                assert np.flatnonzero(mine & mask)[0] == np.flatnonzero(mine)[0] + len(samples[i].prompt_ids) - 1
                assert weights[m] == np.float32(samples[i].weight) and present[m]
                seen.append(i)
        padding = batch.segments_RL == 0
        for array in (batch.ids_RL, batch.positions_RL, batch.targets_RL, batch.mask_RL, batch.ref_logprobs_RL):
            assert not array[padding].any()
    assert sorted(seen) == list(range(16)) and sum(batch.present_RM.sum() for batch in batches) == 16


def test_an_iterator_begins_after_the_steps_that_are_done_and_makes_the_rows_asked_for():
    samples = tiny_samples(64)
    references = [np.zeros(len(s.completion_ids), np.float32) for s in samples]
    steps = make_steps(TrainingSet.of(samples).lengths, BATCH, 1, 0, ROOM)
    batches = list(step_iterator(samples, references, steps, [range(shape.rows) for shape in steps.shapes]))
    assert len(batches) == 4
    here = [[1, 3]] * len(steps.shapes)
    for expected, got in zip(batches[2:], step_iterator(samples, references, steps, here, done=2), strict=True):
        for a, b in ((a, b) for of_shape in zip(expected, got, strict=True) for a, b in zip(*of_shape, strict=True)):
            np.testing.assert_array_equal(a[:, [1, 3]], b)
    assert samples_at(steps.packed, here) < set(range(64))
