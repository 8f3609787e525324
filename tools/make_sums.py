"""Writes sums of three numbers as chats that a small pretrained model solves at some length: two solutions, each with a
check of all its steps, stand before every sum as examples.

python tools/make_sums.py --out=sums
"""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder
from o1p_jax.stages import cli

_EXAMPLES = ((7, 5, -2), (3, 6, 4))


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags):
    out: str
    """The folder to write: train.jsonl and test.jsonl."""
    train: int = 160
    """The number of training problems."""
    test: int = 96
    """The number of test problems, none of which is a training problem."""
    seed: int = 0


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    sums = [terms for terms in _sums() if terms not in _EXAMPLES]
    if min(args.train, args.test) < 1 or args.train + args.test > len(sums):
        raise BadInput(f"--train={args.train} --test={args.test}: at least 1 each, and {len(sums)} together at most")
    out = Path(args.out)
    if out.exists():
        raise BadInput(f"--out={out}: exists already; remove it or name another folder")
    rows = [_row(terms) for terms in random.Random(args.seed).sample(sums, args.train + args.test)]
    with atomic_folder(out) as temporary:
        for name, part in ("train", rows[: args.train]), ("test", rows[args.train :]):
            (temporary / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    print(f"problems {out}")


def _sums() -> list[tuple[int, int, int]]:
    """Returns all sums and differences of three numbers from 1 to 9 that never fall below 0."""
    digits, signed = range(1, 10), [n for n in range(-9, 10) if n]
    return [(a, b, c) for a, b, c in itertools.product(digits, signed, signed) if a + b >= 0 and a + b + c >= 0]


def _row(terms: tuple[int, int, int]) -> dict[str, object]:
    turns = []
    for example in _EXAMPLES:
        turns += [{"role": "user", "content": _question(example)}, {"role": "assistant", "content": _solution(example)}]
    return {"prompt": [*turns, {"role": "user", "content": _question(terms)}], "answer": sum(terms)}


def _question(terms: tuple[int, int, int]) -> str:
    a, b, c = terms
    return f"What is {a}{_signed(b)}{_signed(c)}?"


def _solution(terms: tuple[int, int, int]) -> str:
    a, b, c = terms
    steps = f"First, {a}{_signed(b)} = {a + b}. Then, {a + b}{_signed(c)} = {a + b + c}."
    return (
        f"{steps} So it should be {a + b + c}. Let me check this once more. {steps} "
        f"Yes, I get {a + b + c} again. The answer is {a + b + c}."
    )


def _signed(n: int) -> str:
    return f" {'-' if n < 0 else '+'} {abs(n)}"


if __name__ == "__main__":
    main(command)
