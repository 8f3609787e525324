"""How full are the steps? The planner's shapes and fill on five sets of lengths, beside rows of one length.

    python benchmarks/fill.py --pool=runs/embedded/pool

The pool tells the embedded default's own lengths; the other sets are lognormal (standard deviation of the logarithms
0.7, see planning/lengths.py), 10,000 samples each.
"""

from dataclasses import dataclass
from typing import NamedTuple

from o1p_jax.config.training import BatchConfig
from o1p_jax.data.pool import Pool
from o1p_jax.planning.estimate import uneven
from o1p_jax.planning.lengths import drawn, pool_lengths
from o1p_jax.runtime.entry import main
from o1p_jax.stages import cli
from o1p_jax.training.packing import Steps, make_steps
from o1p_jax.training.shapes import Room, best_fit

_SAMPLES = 10_000


class Case(NamedTuple):
    """A set of lengths, the mesh and the limits that it is trained with, and the shape that steps had before."""

    name: str
    mesh: str
    room: Room
    mean: int
    cap: int
    old_rows: int
    old_length: int


CASES = (
    Case("embedded default, 8x1", "8x1", Room(devices=8, parts=1, tokens=2048, row_length=1024), 0, 0, 8, 768),
    Case("embedded default, 1x1", "1x1", Room(devices=1, parts=1, tokens=2048, row_length=1024), 0, 0, 8, 768),
    Case("R1-7B", "fsdp:8", Room(devices=8, parts=1, tokens=32768, row_length=17408), 4000, 16384, 8, 17408),
    Case(
        "QwQ", "fsdp:4,context:4,tensor:2", Room(devices=4, parts=4, tokens=8192, row_length=9216), 2200, 9216, 32, 9216
    ),
    Case(
        "QwQ on rows alone", "fsdp:32", Room(devices=32, parts=1, tokens=16384, row_length=9216), 2200, 9216, 32, 9216
    ),
    Case("AIME", "fsdp:4,context:2", Room(devices=4, parts=2, tokens=32768, row_length=33792), 9000, 32768, 8, 33792),
    Case("all short", "fsdp:8", Room(devices=8, parts=1, tokens=2048, row_length=1024), 150, 512, 8, 1024),
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    pool: str = "runs/embedded/pool"
    """A pool of the embedded default."""
    sequences: int = 32
    """Samples a step."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    print("| lengths | mesh | shapes (rows x slots) | microbatches a step | filled | before | attention |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for case in CASES:
        lengths = drawn(case.mean, case.cap, _SAMPLES) if case.mean else pool_lengths(Pool(args.pool))
        steps = make_steps(lengths, BatchConfig(sequences=args.sequences), 1, 0, case.room)
        microbatches = sum(len(of_shape) for step in steps.packed for of_shape in step) / len(steps.packed)
        shapes = ", ".join(f"{shape.rows} x {shape.length:,}" for shape in steps.shapes)
        print(
            f"| {case.name} | {case.mesh} | {shapes} | {microbatches:.1f} | {steps.fill:.1%} "
            f"| {_before(case, lengths, steps):.1%} | {1 / uneven(steps):.0%} |",
            flush=True,
        )


def _before(case: Case, lengths: list[int], steps: Steps) -> float:
    """The fill of microbatches of one shape, as many as a step's packed rows need."""
    slots = 0
    for step in steps.packed:
        order = sorted((i for of in step for rows in of for row in rows for i in row), key=lambda i: -lengths[i])
        rows, _ = best_fit(lengths, order, [case.old_length] * len(order))
        slots += -(-sum(map(bool, rows)) // case.old_rows) * case.old_rows * case.old_length
    return steps.tokens / slots


if __name__ == "__main__":
    main(command)
