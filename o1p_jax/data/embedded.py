"""The problems of the embedded problem sets are number machines, in four levels.

    A machine multiplies a number by 3, adds 7, swaps the digits, and keeps only the last two digits after every step.
    It shows 64. Which number went in: 13, 33 or 83?

Trying an option forwards is a few easy steps; seeing the answer at a glance takes all steps backwards at once. A small
model can do that for one step and must guess at four, so a check is waste on level 1 and worth its tokens on level 4.
The options share their last digit, because the last digit alone would be an easy way to the answer.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from o1p_jax.data.records import Problem, problem_id
from o1p_jax.runtime.errors import BadInput

OPTIONS = {1: 3, 2: 4, 3: 4, 4: 5}  # level = number of steps -> number of options
SIZES = {"train": 1024, "validation": 256, "test": 512}
_FACTORS = (3, 7, 9)  # without a common divisor with 100, so that a step loses nothing
_MAX_ADDEND = 20


class Step(NamedTuple):
    """One step of a machine."""

    kind: str
    """'times', 'plus' or 'swap'."""
    operand: int = 0

    def __call__(self, x: int) -> int:
        if self.kind == "times":
            return x * self.operand % 100
        if self.kind == "plus":
            return (x + self.operand) % 100
        return x % 10 * 10 + x // 10


class Machine(NamedTuple):
    """A problem before it is put into words."""

    steps: tuple[Step, ...]
    options: tuple[int, ...]
    answer: int

    @property
    def level(self) -> int:
        return len(self.steps)

    @property
    def shown(self) -> int:
        return self.run(self.answer)[-1]

    def run(self, x: int) -> list[int]:
        """Returns the number that the machine holds after each step when `x` goes in."""
        values = []
        for step in self.steps:
            x = step(x)
            values.append(x)
        return values

    @property
    def unique(self) -> bool:
        """Whether one option alone, the answer, leads to what is shown."""
        return sum(self.run(x)[-1] == self.shown for x in self.options) == 1

    @property
    def text(self) -> str:
        words = {"times": "multiplies by {}", "plus": "adds {}", "swap": "swaps the digits"}
        steps = ", ".join(words[s.kind].format(s.operand) for s in self.steps)
        options = ", ".join(map(str, self.options[:-1])) + f" or {self.options[-1]}"
        return (
            f"A machine takes a number, {steps}, and keeps only the last two digits after every step. "
            f"It shows {self.shown}. Which number went in: {options}?"
        )

    @property
    def split(self) -> str:
        """The machine's split, by hash: a tenth of all machines go to the problem sets, the others to pretraining."""
        bucket = int(hashlib.sha256(self.text.encode()).hexdigest(), 16) % 30
        return {0: "train", 1: "validation", 2: "test"}.get(bucket, "pretraining")


def machines(split: str, seed: int) -> Iterator[Machine]:
    """Yields the split's machines without end, levels in turn."""
    rng = random.Random(f"{split}/{seed}")
    level = 1
    while True:
        machine = _draw(rng, level)
        if machine.split == split and machine.unique:  # in this order: few are of the split, and that is told sooner
            yield machine
            level = level % len(OPTIONS) + 1


def _draw(rng: random.Random, level: int) -> Machine:
    steps: list[Step] = []
    for _ in range(level):
        kinds = ["times", "plus", "swap"]
        if steps:
            kinds.remove(steps[-1].kind)  # two of a kind are one step, or none
        kind = rng.choice(kinds)
        operand = {"times": rng.choice(_FACTORS), "plus": rng.randint(1, _MAX_ADDEND), "swap": 0}[kind]
        steps.append(Step(kind, operand))
    last_digit = rng.randrange(10)
    options = tuple(10 * tens + last_digit for tens in rng.sample(range(1, 10), OPTIONS[level]))
    return Machine(tuple(steps), options, rng.choice(options))


def embedded_problems(split: str, limit: int | None = None) -> list[Problem]:
    """Returns the problem set `split` ('train', 'validation' or 'test'): always the same, disjoint from the others.

    With `limit`, these are the set's first so many problems.
    """
    if split not in SIZES:
        raise BadInput(f"embedded:{split}: no such problem set; there are {', '.join(f'embedded:{s}' for s in SIZES)}")
    wanted = SIZES[split] if limit is None else min(limit, SIZES[split])
    quota = -(-wanted // len(OPTIONS))
    levels: dict[str, dict[str, Problem]] = {str(level): {} for level in OPTIONS}
    for machine in machines(split, seed=0):
        answer, level = str(machine.answer), str(machine.level)
        key = problem_id(machine.text, answer)
        if len(levels[level]) < quota:
            levels[level][key] = Problem(
                problem_id=key, source="embedded", split=split, level=level, problem=machine.text, answer=answer
            )
        if all(len(problems) == quota for problems in levels.values()):
            break
    # Levels in turn, so that the first few problems are of every level.
    rows = zip(*(problems.values() for problems in levels.values()), strict=True)
    return list(itertools.chain.from_iterable(rows))[:wanted]
