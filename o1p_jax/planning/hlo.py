"""What a compiled program sends between devices, by kind of collective and axis of the mesh, and its short loops.

Both are read from the program's text.

A backend may fuse a collective, split it into a chain, or turn a gather and a matrix product into a loop of permutes.
Links of a chain share a channel and count once; a loop's body counts as often as the loop turns.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations|called_computations|async_computation)=\{?([^,}]+)")
_WHILE = re.compile(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute|ragged-all-to-all)(-start)?\("
)
_KERNEL = re.compile(r" (?:fusion|custom-call|copy|dot|reduce|sort|dynamic-update-slice)\(")
_SHAPE = re.compile(r"\b(pred|[suf]\d+|bf16|f8\w*)\[([\d,]*)\]")
_TYPE_BYTES = {"pred": 1, "bf16": 2}


class Collective(NamedTuple):
    """All collectives of a step of one kind along one axis (or several axes together)."""

    kind: str
    axis: str
    """Names of the mesh's axes, joined by "+"."""
    times: int
    """How often the collective runs in a step."""
    bytes: int
    """Bytes that each device receives in a step, one way."""


class OpenLoop(NamedTuple):
    """A loop whose number of turns depends on data, and that holds no other loop."""

    kernels: int
    """Kernels that a GPU begins each turn, the loop's condition among them."""
    entered: int
    """How often the loop begins in a step."""
    depth: int
    """The number of loops around it."""


class _Line(NamedTuple):
    """A collective as one line of the program's text has it."""

    kind: str
    channel: str
    bytes: int
    """Bytes of the whole array: what a device has after a gather or before a scatter."""
    part: bool
    """Whether `bytes` are those of a device's part instead."""
    groups: list[list[int]]
    """Devices that send to each other."""


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """Returns the collectives in the text of a compiled program that runs on `mesh`, those with the most bytes first.

    `mesh` maps an axis to its number of devices, in the devices' order. Loops whose number of turns depends on data
    count as one turn.
    """
    computations = _computations(text)
    times = _times(computations, next(name for name, (entry, _) in computations.items() if entry))
    seen: dict[tuple[str, str], tuple[int, _Line]] = {}
    for name, (_, lines) in computations.items():
        for line in filter(None, (_parse(line, name) for line in lines)):
            key = (line.kind, line.channel)
            if times[name] and (key not in seen or times[name] > seen[key][0]):
                seen[key] = (times[name], line)
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for turns, line in seen.values():
        axis, n = _axis(line.groups, mesh)
        if n > 1:
            found[line.kind, axis][0] += turns
            found[line.kind, axis][1] += turns * _received(line.kind, line.bytes * (n if line.part else 1), n)
    return sorted(
        (Collective(kind, axis, count, size) for (kind, axis), (count, size) in found.items()), key=lambda c: -c.bytes
    )


def open_loops(text: str) -> list[OpenLoop]:
    """Returns the innermost of the loops whose number of turns depends on data.

    These run over attention's tiles of keys, and over tiles of rows that go to experts, where no kernel of its own
    serves.
    """
    computations = _computations(text)
    entry = next(name for name, (begins, _) in computations.items() if begins)
    times, depths = _times(computations, entry), _depths(computations, entry)
    found = []
    for name, (_, lines) in computations.items():
        for loop in filter(None, map(_open_loop, lines)):
            body = computations[loop[2]][1]
            if times[name] and not any(map(_WHILE.search, body)):
                kernels = 1 + sum(map(bool, map(_KERNEL.search, body)))
                found.append(OpenLoop(kernels=kernels, entered=times[name], depth=depths[name]))
    return found


def _open_loop(line: str) -> re.Match[str] | None:
    """The loop in a line, if its number of turns depends on data."""
    return None if "known_trip_count" in line else _WHILE.search(line)


def _computations(text: str) -> dict[str, tuple[bool, list[str]]]:
    """Name of a computation -> (whether the program begins there, the computation's lines)."""
    found: dict[str, tuple[bool, list[str]]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = []
            found[match[2]] = (match[1] is not None, lines)
        else:
            lines.append(line)
    return found


def _times(computations: Mapping[str, tuple[bool, list[str]]], entry: str) -> dict[str, int]:
    """How often each computation runs."""
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, turns: int) -> None:
        if name not in computations:
            return
        times[name] += turns
        for line in computations[name][1]:
            if loop := _WHILE.search(line):
                visit(loop[2], turns * _trips(computations, loop[1], line))
                continue
            for match in _CALLED.finditer(line):
                visit(match[1].strip().lstrip("%"), turns)

    visit(entry, 1)
    return times


def _depths(computations: Mapping[str, tuple[bool, list[str]]], entry: str) -> dict[str, int]:
    """In how many loops each computation lies."""
    depths: dict[str, int] = {}

    def visit(name: str, depth: int) -> None:
        if name not in computations or depths.get(name, -1) >= depth:
            return
        depths[name] = depth
        for line in computations[name][1]:
            if loop := _WHILE.search(line):
                visit(loop[2], depth + 1)
                continue
            for match in _CALLED.finditer(line):
                visit(match[1].strip().lstrip("%"), depth)

    visit(entry, 0)
    return depths


def _trips(computations: Mapping[str, tuple[bool, list[str]]], condition: str, line: str) -> int:
    """The number of turns of a loop that counts up to a constant; 1 for any other loop."""
    if known := re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line):
        return int(known[1])
    body = "\n".join(computations[condition][1])
    compared = re.search(r"ROOT .*compare\((.*?)\), direction=LT", body)
    constants = dict(re.findall(r"%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)", body))
    operands = re.findall(r"%?([\w.\-]+)(?:,|$)", compared[1]) if compared else []
    return next((int(constants[name]) for name in operands if name in constants), 1)


def _parse(line: str, computation: str) -> _Line | None:
    """The collective in a line; None where the line has none."""
    match = _COLLECTIVE.search(line)
    if match is None:
        return None
    sizes = [
        math.prod(map(int, filter(None, dims.split(","))))
        * (_TYPE_BYTES.get(kind) or int(re.sub(r"\D", "", kind[:3])) // 8)
        for kind, dims in _SHAPE.findall(match[1])
    ]
    whole = _whole(match[2], sizes) if match[3] else sum(sizes)
    channel = re.search(r"channel_id=(\d+)", line)
    kind = "reduce-scatter" if match[2] == "all-reduce" and "all-reduce-scatter" in computation else match[2]
    part = match[2] == "reduce-scatter" and not match[3]
    return _Line(kind, channel[1] if channel else computation, whole, part, _groups(line))


def _whole(kind: str, sizes: list[int]) -> int:
    """Bytes of the arrays of a "-start", whose type lists operands and results (several, where they were combined)."""
    if kind == "all-reduce":
        return sum(sizes)  # results only
    sizes = sizes[: len(sizes) // 2 * 2] if kind != "collective-permute" else [n for n in sizes if n > 4] or sizes
    half = len(sizes) // 2
    operands, results = sum(sizes[:half]), sum(sizes[half:])
    return max(operands, results)  # what a gather makes, what a scatter takes


def _groups(line: str) -> list[list[int]]:
    """The groups of devices that a collective's line names; empty where it names none."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", line):
        return [[int(n) for n in re.findall(r"\d+", pair)] for pair in pairs[1].split("},")]
    if named := re.search(r"replica_groups=mesh\[(.*?)\](?:\S*)? \{(.*?)\}", line):
        axes = [(name, int(n)) for name, n in re.findall(r"'(\w+)'=(\d+)", named[1])]
        return _along([n for _, n in axes], [i for i, (name, _) in enumerate(axes) if f"'{name}'" in named[2]])
    if tiled := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, dims = ([int(n) for n in tiled[i].split(",")] for i in (1, 2))
        devices = np.arange(math.prod(dims)).reshape(dims)
        if tiled[3]:
            devices = devices.transpose([int(n) for n in tiled[3].split(",")])
        return devices.reshape(shape).tolist()
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        return [[int(n) for n in re.findall(r"\d+", group)] for group in listed[1].split("},")]
    return []


def _along(shape: list[int], axes: Iterable[int]) -> list[list[int]]:
    """Groups of devices that differ only along `axes`."""
    axes = list(axes)
    devices = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), axes, range(-len(axes), 0))
    return devices.reshape(-1, math.prod(shape[a] for a in axes)).tolist()


def _axis(groups: list[list[int]], mesh: Mapping[str, int]) -> tuple[str, int]:
    """The axes along which the devices of a group differ, and the number of devices along these axes."""
    sizes = list(mesh.values())
    if not groups:  # all devices
        groups = [list(range(math.prod(sizes)))]
    spread = {
        axis
        for group in groups
        for axis, places in zip(mesh, np.unravel_index(group, sizes), strict=True)
        if len(set(places.tolist())) > 1
    }
    names = [axis for axis in mesh if axis in spread]
    return "+".join(names), math.prod(mesh[axis] for axis in names)


def _received(kind: str, size: int, n: int) -> int:
    """Bytes that each device receives; `size` is the number of bytes of the whole array."""
    match kind:
        case "all-reduce":
            return 2 * size * (n - 1) // n
        case "collective-permute":
            return size
        case _:
            return size * (n - 1) // n
