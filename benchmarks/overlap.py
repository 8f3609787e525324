"""What the look for overlap finds on two real problem sets, on changed copies of one, and what it costs.

    python benchmarks/overlap.py --train=gsm8k/train.jsonl --test=gsm8k/test.jsonl

The files' column of the problem is `question`. Each line adds other copies of the test problems to the training
problems.
"""

import random
import re
import time
from collections.abc import Callable

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.overlap import find_overlap
from o1p_jax.data.problems import load_problems
from o1p_jax.runtime.entry import main
from o1p_jax.stages.cli import take_flag

RNG = random.Random(0)


def typography(text: str) -> str:
    return re.sub(r"\s+", lambda _: RNG.choice([" ", "\n", "  "]), text.upper()).replace(",", "")


def one_word(text: str) -> str:
    words = text.split()
    words[RNG.choice([i for i, word in enumerate(words) if word.isalpha()])] = "thing"
    return " ".join(words)


def one_number(text: str) -> str:
    spans = [number.span() for number in re.finditer(r"\d+", text)]
    if not spans:
        return ""
    start, end = RNG.choice(spans)
    return f"{text[:start]}{int(text[start:end]) + 1}{text[end:]}"


def other_numbers(text: str) -> str:
    return re.sub(r"\d+", lambda _: str(RNG.randrange(1, 300)), text)


CHANGES: dict[str, Callable[[str], str]] = {
    "other white space, no commas, capitals": typography,
    "one word replaced": one_word,
    "two words replaced": lambda text: one_word(one_word(text)),
    "seven words before it": lambda text: f"Solve this problem step by step, please: {text}",
    "one number changed": one_number,
}


def command(argv: list[str]) -> None:
    files = []
    for name in ("train", "test"):
        file, argv = take_flag(argv, name)
        files.append(file or f"gsm8k/{name}.jsonl")
    cfg = ProblemConfig()
    train, test = ([p.problem for p in load_problems(file, cfg)] for file in files)
    show("as they are", train, test)
    for what, change in CHANGES.items():
        show(what, train + [change(text) for text in test], test)
    many = [other_numbers(text) for _ in range(-(-100_000 // len(train))) for text in train][:100_000]
    show("templates with other numbers", many, test[:1000])


def show(what: str, train: list[str], test: list[str]) -> None:
    start = time.process_time()
    found = find_overlap(train, test)
    seconds = time.process_time() - start
    exact = sum(shared.exact for shared in found)
    print(
        f"{what}: {len(found):,} of {len(test):,} ({exact:,} by text), {len(train):,} training problems, "
        f"{seconds:.1f} s of processor time"
    )


if __name__ == "__main__":
    main(command)
