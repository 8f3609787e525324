"""The planner, held to what every plan must be, and to what it is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.training.shapes import MOST_SHAPES, Packer, Room, Shape, best_fit

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=60)
SHAPES = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 64)).map(lambda s: Shape(2 * s[0], s[1])), max_size=3, unique=True
)


def lognormal(mean: float, cap: int, count: int) -> list[int]:
    draws = np.random.default_rng(0).lognormal(np.log(mean) - 0.245, 0.7, count)
    return np.clip(draws, 16, cap).astype(int).tolist()


def steps_of(lengths: list[int], sequences: int) -> list[list[int]]:
    return [lengths[i : i + sequences] for i in range(0, len(lengths), sequences)]


@given(LENGTHS, SHAPES, st.integers(0, 40))
def test_every_sample_lies_in_one_row_with_room_and_no_microbatch_is_empty(lengths, more, cost):
    shapes = tuple(sorted({*more, Shape(2, 64)}, key=lambda s: (-s.length, -s.rows)))
    packed = Packer(shapes=shapes, devices=2, cost=cost).pack(lengths)
    assert sorted(i for of in packed for rows in of for row in rows for i in row) == list(range(len(lengths)))
    for shape, microbatches in zip(shapes, packed, strict=True):
        for rows in microbatches:
            assert len(rows) == shape.rows and any(rows)
            assert all(sum(lengths[i] for i in row) <= shape.length for row in rows)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.sampled_from([(1, 1), (8, 1), (2, 4)]), st.integers(64, 500))
def test_shapes_keep_to_their_limits_and_hold_the_longest(lengths, sequences, mesh, tokens):
    devices, parts = mesh
    room = Room(devices=devices, parts=parts, tokens=tokens, row_length=80)
    packer = Packer.choose(steps_of(lengths, sequences), room)
    assert packer == Packer.choose(steps_of(lengths, sequences), room)
    assert 1 <= len(packer.shapes) <= MOST_SHAPES
    assert list(packer.shapes) == sorted(packer.shapes, key=lambda s: (-s.length, -s.rows))
    unit = 16 * parts  # a row may be longer than its limit by less than a tile
    for shape in packer.shapes:
        assert shape.rows % devices == 0 and shape.length % unit == 0 and shape.length < 80 + unit
        assert shape.slots <= devices * parts * max(tokens, unit * -(-max(lengths) // unit))
    assert packer.shapes[0].length >= max(lengths)


@pytest.mark.parametrize(
    ("devices", "parts", "mean", "cap"), [(8, 1, 4000, 16384), (4, 8, 2200, 9216), (8, 1, 150, 512), (1, 1, 635, 2048)]
)
def test_few_shapes_fill_nine_slots_of_ten(devices, parts, mean, cap):
    steps = steps_of(lognormal(mean, cap, 6400), 32)
    packer = Packer.choose(steps, Room(devices=devices, parts=parts, tokens=2 * cap, row_length=2 * cap))
    slots = sum(packer.slots(packer.pack(step)) for step in steps)
    assert sum(map(sum, steps)) / slots > 0.88


def test_a_short_run_compiles_one_shape_and_a_long_one_more():
    steps = steps_of(lognormal(150, 512, 6400), 32)
    room = Room(devices=8, parts=1, tokens=2048, row_length=1024)
    assert len(Packer.choose(steps[:4], room).shapes) == 1 < len(Packer.choose(steps, room).shapes)


def test_long_rows_are_of_whole_tiles():
    steps = steps_of(lognormal(4000, 16384, 320), 32)
    shapes = Packer.choose(steps, Room(devices=2, parts=4, tokens=16384, row_length=16384)).shapes
    assert all(shape.length % (128 * 4) == 0 for shape in shapes)


def test_more_samples_than_a_few_microbatches_hold_are_packed_as_well():
    lengths = lognormal(635, 2048, 2000)
    packer = Packer(shapes=(Shape(8, 2048), Shape(8, 512)), devices=8, cost=0)
    packed = packer.pack(lengths)
    assert sorted(i for of in packed for rows in of for row in rows for i in row) == list(range(2000))
    assert sum(lengths) / packer.slots(packed) > 0.95


def test_the_devices_of_a_microbatch_get_about_the_same_attention():
    lengths = lognormal(635, 2048, 64)
    [[rows]] = Packer(shapes=(Shape(64, 2048),), devices=4, cost=0).pack(lengths)
    work = np.array([sum(lengths[i] ** 2 for i in row) for row in rows]).reshape(4, 16).sum(axis=1)
    assert work.max() < 1.25 * work.mean()


def test_best_fit_takes_the_tightest_row():
    assert best_fit([5, 4, 3, 3], [0, 1, 2, 3], [8, 5, 4]) == ([[2, 3], [0], [1]], [])
    assert best_fit([5, 9, 3], [1, 0, 2], [8]) == ([[0, 2]], [1])
    assert best_fit([5, 9, 3], [1, 0, 2], [8], whole=True) == ([[]], [1])
