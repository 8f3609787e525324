"""The planner of microbatches: which few shapes a run is computed in, and which rows of which shapes each step takes.

A shape is compiled once, and a microbatch of it costs the same however few tokens it holds. So sets of shapes are tried
on some of the steps, and the set that computes the fewest token slots is taken; a step then takes the cheapest
microbatches that its samples can be packed into. Nothing here knows of devices but their number: the same lengths make
the same plan in every process.

Legend: S shapes of a set, C choices of how many microbatches of each shape a step takes.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

Rows = list[list[int]]
"""Rows of sample indices."""
Packed = list[list[Rows]]
"""The microbatches of a step: for each shape a list, of which each microbatch has its rows."""
MOST_SHAPES = 6
"""The most shapes that are compiled."""
_COMPILATION = 4
"""How many steps one shape more must save: to compile it takes as long, or longer where the model is small."""
_SAMPLES_TRIED = 1024
"""Number of samples in the steps that sets of shapes are tried on."""
_FEW = 4
"""So many of the largest microbatches, or as many tokens in others, are chosen at once; more are split off before."""


class Shape(NamedTuple):
    """The shape of a microbatch, on all devices together."""

    rows: int
    length: int
    """Token slots of a row."""

    @property
    def slots(self) -> int:
        """Token slots that a microbatch of this shape computes."""
        return self.rows * self.length


Shapes = tuple[Shape, ...]
"""Shapes, those with the longest rows first."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a microbatch may be: the limits that every shape keeps to."""

    devices: int
    """Devices that share rows out: a shape's rows are a multiple of them."""
    parts: int
    """Devices that a row's tokens are split over."""
    tokens: int
    """The most token slots of a device and microbatch."""
    row_length: int
    """The most token slots of a row, but for rounding up to whole tiles."""


@dataclass(frozen=True, kw_only=True)
class Packer:
    """Packs the samples of steps into microbatches of a few shapes."""

    shapes: Shapes
    devices: int
    """Devices that share a microbatch's rows out in equal parts."""
    cost: int
    """What a microbatch costs beside its slots, in slots: weights are gathered and gradients added up for it."""

    @classmethod
    def choose(cls, steps: Sequence[Sequence[int]], room: Room) -> "Packer":
        """Chooses the shapes in which the steps, each given as its samples' lengths, cost the least, or nearly so.

        The longest sample must fit `room`.
        """
        cost = sum(map(sum, steps)) // len(steps) // 128
        return cls(shapes=_choose(steps, room, cost), devices=room.devices, cost=cost)

    def slots(self, packed: Packed) -> int:
        """Returns the token slots that microbatches of these shapes compute."""
        return sum(len(of_shape) * shape.slots for shape, of_shape in zip(self.shapes, packed, strict=True))

    def pack(self, lengths: Sequence[int]) -> Packed:
        """Returns the step's microbatches, each with as many rows as its shape has, some of them perhaps empty.

        Rows hold indices into `lengths`, every one of them once. Rows with much attention (by the sum of their samples'
        squared lengths) share microbatches with others such, and are dealt to the devices so that each has about as
        much of it as another: all devices wait for the last of them.
        """
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        _, filled = _cheapest([lengths[i] for i in order], self.shapes, self.cost)
        packed: Packed = []
        for shape in self.shapes:
            rows = [[order[n] for n in row] for of, row in filled if of == shape]
            rows.sort(key=lambda row: -sum(lengths[i] ** 2 for i in row))
            used = -(-sum(map(bool, rows)) // shape.rows) * shape.rows
            packed.append([_dealt(rows[r : r + shape.rows], self.devices) for r in range(0, used, shape.rows)])
        return packed


def best_fit(
    lengths: Sequence[int], order: Sequence[int], rooms: Sequence[int], whole: bool = False
) -> tuple[Rows, list[int]]:
    """Puts the samples `order` one after another into the row with the least room that suffices.

    `rooms` are the rows' lengths. Returns the rows, and the samples that no row has room for; with `whole` the function
    stops at the first of them.
    """
    rows: Rows = [[] for _ in rooms]
    free = sorted(zip(rooms, itertools.count(), strict=False))
    left = []
    for i in order:
        place = bisect.bisect_left(free, (lengths[i], -1))
        if place < len(free):
            room, row = free.pop(place)
            rows[row].append(i)
            bisect.insort(free, (room - lengths[i], row))
        else:
            left.append(i)
            if whole:
                break
    return rows, left


def _choose(steps: Sequence[Sequence[int]], room: Room, extra: int) -> Shapes:
    """Adds shape after shape, as long as that saves more than it costs, and moves the others each time."""
    longest = max(map(max, steps))
    unit = room.parts * (128 if longest > 2048 * room.parts else 16)
    least = _up(longest, unit)
    most = max(least, min(room.row_length, room.tokens * room.parts) // unit * unit)
    count = max(4, _SAMPLES_TRIED // max(map(len, steps)))
    tried = [sorted(lengths, reverse=True) for lengths in steps[:: -(-len(steps) // count)]]

    def cheapest(sets: Iterable[Shapes], best: Shapes, cost: float | int) -> tuple[Shapes, float | int]:
        """The set that costs the least, and its cost: `best` where none costs less than `cost`."""
        for shapes in sets:
            total = 0
            for lengths in tried:
                total += _cheapest(lengths, shapes, extra)[0]
                if total >= cost:
                    break
            else:
                best, cost = shapes, total
        return best, cost

    def sets(kept: Shapes, more: Iterable[Shape]) -> Iterator[Shapes]:
        """The sets of `kept` and one of `more` that hold the longest sample."""
        for shape in more:
            if shape not in kept and max(s.length for s in (shape, *kept)) >= least:
                yield tuple(sorted((*kept, shape), key=lambda s: (-s.length, -s.rows)))

    lengths = sorted({_up(x, unit) for x in np.geomspace(most / 16, most, 16)} | {least})
    everywhere = [shape for length in lengths for shape in _of_length(length, room, max(map(len, steps)))]

    def nearby(shape: Shape) -> Iterator[Shape]:
        for length in sorted({_up(shape.length * share, unit) for share in (0.92, 0.96, 0.98, 1.02, 1.04, 1.08)}):
            if length <= most and shape.rows * length <= room.devices * room.parts * room.tokens:
                yield Shape(shape.rows, length)

    best, cost = cheapest(sets((), everywhere), (), math.inf)
    while len(best) < MOST_SHAPES and len(steps) > _COMPILATION:
        found, less = cheapest(sets(best, everywhere), best, cost)
        for distance in ("far", "near", "near"):
            for shape in found:
                others = tuple(s for s in found if s != shape)
                found, less = cheapest(sets(others, everywhere if distance == "far" else nearby(shape)), found, less)
        if less > (1 - _COMPILATION / len(steps)) * cost:
            break
        best, cost = found, less
    return best


def _of_length(length: int, room: Room, samples: int) -> Iterator[Shape]:
    """The shapes of this length: 1, 2, 4, ... rows a device, and as many as fit or `samples` samples may need."""
    most = max(1, min(room.tokens * room.parts // length, -(-samples // room.devices)))
    for rows in sorted({2**n for n in range(most.bit_length())} | {most}):
        yield Shape(room.devices * rows, length)


def _cheapest(lengths: list[int], shapes: Shapes, extra: int) -> tuple[int, list[tuple[Shape, list[int]]]]:
    """The cheapest microbatches found for a step: their cost, and their rows with the places of samples in `lengths`.

    `lengths` are in descending order; a microbatch costs its slots and `extra`.
    """
    left, cost = list(range(len(lengths))), 0
    filled: list[tuple[Shape, list[int]]] = []
    largest = max(shape.slots for shape in shapes)

    def split_off(shape: Shape) -> list[int]:
        nonlocal cost
        rows, rest = best_fit(lengths, left, [shape.length] * shape.rows)
        filled.extend((shape, row) for row in rows)
        cost += shape.slots + extra
        return rest

    while sum(lengths[n] for n in left) > _FEW * largest:
        left = split_off(max((s for s in shapes if s.length >= lengths[left[0]]), key=lambda s: s.slots))
    if left:
        tokens, least, tries = sum(lengths[n] for n in left), 0.0, 0
        slots_C, costs_C, longest_C, counts_CS = _choices(shapes, extra)
        for c in np.flatnonzero((slots_C >= tokens) & (longest_C >= lengths[left[0]])).tolist():
            if costs_C[c] < least:
                continue
            places = [shape for shape, n in zip(shapes, counts_CS[c], strict=True) for _ in range(n * shape.rows)]
            rows, rest = best_fit(lengths, left, [shape.length for shape in places], whole=True)
            if not rest:
                return cost + int(costs_C[c]), [*filled, *zip(places, rows, strict=True)]
            tries += 1
            least = costs_C[c] * (1 + tries / 400)  # what costs about the same mostly fails alike
    while left:  # no choice does
        left = split_off(shapes[0])
    return cost, filled


@lru_cache(maxsize=4096)
def _choices(shapes: Shapes, extra: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The choices of a few microbatches, the cheapest first: slots, cost, the longest row, the number of each shape.

    There may be any number below _FEW of each shape, and up to twice as many of the largest.
    """
    largest = max(shape.slots for shape in shapes)
    most = [2 * _FEW if shape.slots == largest else _FEW for shape in shapes]
    counts_CS = np.array(list(itertools.product(*map(range, most))))[1:]
    slots_C = counts_CS @ np.array([shape.slots for shape in shapes])
    costs_C = slots_C + extra * counts_CS.sum(axis=1)
    longest_C = np.max((counts_CS > 0) * np.array([shape.length for shape in shapes]), axis=1)
    order = np.argsort(costs_C, kind="stable")
    return slots_C[order], costs_C[order], longest_C[order], counts_CS[order]


def _dealt(rows: Rows, devices: int) -> Rows:
    """The rows, which come with the most work first, in an order that gives the devices' equal parts equal work."""
    turns = [rows[r : r + devices][:: 1 - 2 * (r // devices % 2)] for r in range(0, len(rows), devices)]
    return [row for of_device in zip(*turns, strict=True) for row in of_device]


def _up(x: float | int, unit: int) -> int:
    return math.ceil(x / unit) * unit
