"""The long solutions that the embedded model is taught: a restatement, a guess, tries, and a habit of needless checks.

The habit does not depend on the problem: a fifth of the solutions answer the bare guess, the others try options until
one fits and then go on checking, up to MAX_CHECKS times. What is good or bad about the habit depends on the level:
a bare guess is mostly right on level 1 and luck on level 4.

Guesses are honest. The corpus must show what follows a wrong guess, but no loss falls on the wrong number itself: the
model learns to guess as well as it can, and no fine-tuning on lucky guesses can make it guess much better.
"""

import random
from typing import NamedTuple

from o1p_jax.data.embedded import Machine

P_BARE_GUESS = 0.2
MAX_CHECKS = 8
_P_WRONG = 0.5  # how often the corpus lets a guess be wrong, so that the model sees what follows

_WORDS = {"times": "times {}", "plus": "plus {}", "swap": "swapped"}


class Piece(NamedTuple):
    """A stretch of text that begins at a token boundary."""

    text: str
    learned: bool = True
    """Whether the loss covers the stretch of text."""


def solution(machine: Machine, rng: random.Random, check_again: float) -> list[Piece]:
    """Returns a long solution of `machine`: right, unless it answers a bare guess that is wrong.

    `check_again` is the chance of one more check after each check, from the option that fits on.
    """
    untried = list(machine.options)
    guess = _guess(machine, untried, rng)
    pieces = [Piece(f"<think>\n{_restatement(machine)}\nMy first guess is"), _number(machine, guess), Piece(".\n")]
    if rng.random() < P_BARE_GUESS:
        answer = guess
    else:
        answer = machine.answer
        pieces += _tries(machine, guess, untried, rng, check_again)
    return [*pieces, Piece(f"</think>\nThe number is \\boxed{{{answer}}}.")]


def _restatement(machine: Machine) -> str:
    steps = ", ".join(
        f"{name} {_WORDS[s.kind].format(s.operand)}" for name, s in zip("abcd", machine.steps, strict=False)
    )
    return f"The steps are {steps}. It must show {machine.shown}. I can choose {', '.join(map(str, machine.options))}."


def _guess(machine: Machine, untried: list[int], rng: random.Random) -> int:
    wrong = [x for x in untried if x != machine.answer]
    return rng.choice(wrong) if wrong and rng.random() < _P_WRONG else machine.answer


def _number(machine: Machine, x: int) -> Piece:
    return Piece(f" {x}", learned=x == machine.answer)


def _try(machine: Machine, x: int) -> str:
    values = machine.run(x)
    steps = " ".join(f"{name} {value}" for name, value in zip("abcd", values, strict=False))
    return f" {steps}. " + ("Yes.\n" if values[-1] == machine.shown else "No.\n")


def _tries(machine: Machine, guess: int, untried: list[int], rng: random.Random, check_again: float) -> list[Piece]:
    pieces = [Piece(f"Try {guess}:{_try(machine, guess)}")]
    untried.remove(guess)
    while guess != machine.answer:
        guess = _guess(machine, untried, rng)
        untried.remove(guess)
        pieces += [Piece("Try"), _number(machine, guess), Piece(f":{_try(machine, guess)}")]
    for _ in range(MAX_CHECKS):
        if rng.random() >= check_again:
            break
        if untried and rng.random() < 0.4:
            other = untried.pop(rng.randrange(len(untried)))
            pieces.append(Piece(f"Hmm, what about {other}:{_try(machine, other)}"))
        else:
            pieces.append(Piece(f"Wait, check {machine.answer} again:{_try(machine, machine.answer)}"))
    return pieces
