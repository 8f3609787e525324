import numpy as np
import pytest
from drive_train import tiny_samples
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.config.tree import BatchConfig
from o1p_jax.runtime.errors import BadInput
from o1p_jax.training.packing import assemble, check_fits, make_steps, pack, step_iterator
from o1p_jax.training.samples import TrainingSet

BATCH = BatchConfig(sequences=16, row_length=48, rows_per_microbatch=4)


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packing_places_every_sample_once_and_overfills_no_row(lengths):
    rows = pack(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 50 for row in rows)


def test_packing_fills_the_rows_of_long_tailed_lengths():
    lengths = np.clip(np.random.default_rng(0).lognormal(6.2, 0.6, 256), 1, 2048).astype(int).tolist()
    rows = pack(lengths, 2048)
    assert len(rows) * 2048 / sum(lengths) < 1.03


@given(st.lists(st.integers(1, 48), min_size=1, max_size=80), st.integers(1, 3), st.integers(0, 5))
def test_steps_give_every_epoch_every_sample_once_in_steps_of_one_size(lengths, epochs, seed):
    steps = make_steps(lengths, BATCH, epochs, seed)
    assert steps == make_steps(lengths, BATCH, epochs, seed)
    samples = [[i for row in rows for i in row] for rows in steps.packed]
    a_epoch = -(-len(lengths) // BATCH.sequences)
    assert len(samples) == epochs * a_epoch
    for epoch in range(epochs):
        of_epoch = samples[epoch * a_epoch : (epoch + 1) * a_epoch]
        assert sorted(i for step in of_epoch for i in step) == list(range(len(lengths)))
        assert all(len(step) == BATCH.sequences for step in of_epoch[:-1])
    assert max(map(len, steps.packed)) <= steps.microbatches * steps.rows
    assert 0 < steps.fill <= 1


def test_epochs_and_seeds_shuffle_differently():
    lengths = [10] * 32
    steps = make_steps(lengths, BATCH, 2, 0)
    assert steps.packed[:2] != steps.packed[2:]
    assert steps.packed != make_steps(lengths, BATCH, 2, 1).packed


def test_too_long_samples_are_refused_and_rows_must_spread_over_the_devices():
    samples = TrainingSet.of(tiny_samples(20))
    check_fits(samples, max(samples.lengths))
    with pytest.raises(
        BadInput, match=rf"batch.row_length=20: \d+ of 20 samples .* up to {max(samples.lengths)} tokens"
    ):
        check_fits(samples, 20)
    with pytest.raises(BadInput, match="no samples to train on"):
        check_fits(TrainingSet.of([]), 20)
    with pytest.raises(BadInput, match=r"batch.rows_per_microbatch=4: must be a multiple .* 8"):
        make_steps([5], BATCH, 1, 0, row_multiple=8)


def test_every_token_stands_where_it_is_predicted():
    samples = tiny_samples(16)
    references = [np.arange(len(s.completion_ids), dtype=np.float32) - 50 * i for i, s in enumerate(samples)]
    steps = make_steps(TrainingSet.of(samples).lengths, BATCH, 1, 0)
    batch = assemble(
        samples, references, steps.packed[0], steps.microbatches, steps.rows, steps.row_length, steps.segments
    )
    assert batch.ids_RL.shape == (steps.microbatches, steps.rows, 48)
    flat = [x.reshape(-1, x.shape[-1]) for x in batch]
    seen = set()
    for r, row in enumerate(steps.packed[0]):
        for m, i in enumerate(row):
            ids, segments, positions, targets, mask, reference, weights, present = (x[r] for x in flat)
            mine = segments == m + 1
            assert tuple(ids[mine]) == samples[i].prompt_ids + samples[i].completion_ids
            assert positions[mine].tolist() == list(range(mine.sum()))
            assert tuple(targets[mine & mask]) == samples[i].completion_ids
            assert reference[mine & mask].tolist() == references[i].tolist()
            assert np.flatnonzero(mine & mask)[0] == np.flatnonzero(mine)[0] + len(samples[i].prompt_ids) - 1
            assert weights[m] == np.float32(samples[i].weight) and present[m]
            seen.add(i)
    assert seen == set(range(16)) == set(range(batch.present_RM.sum()))
    padding = batch.segments_RL == 0
    for array in (batch.ids_RL, batch.positions_RL, batch.targets_RL, batch.mask_RL, batch.ref_logprobs_RL):
        assert not array[padding].any()


def test_an_iterator_begins_after_the_steps_that_are_done_and_makes_the_rows_asked_for():
    samples = tiny_samples(64)
    references = [np.zeros(len(s.completion_ids), np.float32) for s in samples]
    steps = make_steps(TrainingSet.of(samples).lengths, BATCH, 1, 0)
    batches = list(step_iterator(samples, references, steps, range(steps.rows)))
    assert len(batches) == 4
    for expected, got in zip(batches[2:], step_iterator(samples, references, steps, [1, 3], done=2), strict=True):
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_array_equal(a[:, [1, 3]], b)
