import random
from itertools import islice

import pytest

from o1p_jax.data.embedded import OPTIONS, SIZES, Machine, Step, embedded_problems, machines
from o1p_jax.runtime.errors import BadInput
from tools.make_embedded.traces import solution

MACHINE = Machine((Step("times", 3), Step("plus", 7), Step("swap")), (12, 32, 72), 32)


def test_a_machine_by_hand():
    assert MACHINE.run(32) == [96, 3, 30]
    assert MACHINE.shown == 30
    assert "multiplies by 3, adds 7, swaps the digits" in MACHINE.text


def test_sets_are_disjoint_and_the_same_every_time():
    sets = {split: embedded_problems(split) for split in SIZES}
    ids = [p.problem_id for problems in sets.values() for p in problems]
    assert len(ids) == len(set(ids)) == sum(SIZES.values())
    assert embedded_problems("test") == sets["test"]
    for limit in (1, 4, 7, 511, 1000):
        assert embedded_problems("test", limit) == sets["test"][:limit]
    pretraining = {m.text for m in islice(machines("pretraining", 1), 3000)}
    assert not pretraining & {p.problem for problems in sets.values() for p in problems}


def test_levels_are_even():
    levels = [p.level for p in embedded_problems("test")]
    assert {levels.count(str(level)) for level in OPTIONS} == {SIZES["test"] // len(OPTIONS)}


def test_unknown_split():
    with pytest.raises(BadInput, match="embedded:tset"):
        embedded_problems("tset")


@pytest.mark.parametrize("seed", range(20))
def test_one_option_fits_and_last_digits_tell_nothing(seed):
    for machine in islice(machines("pretraining", seed), 50):
        assert [x for x in machine.options if machine.run(x)[-1] == machine.shown] == [machine.answer]
        assert len({x % 10 for x in machine.options}) == 1


@pytest.mark.parametrize("seed", range(20))
def test_solutions_are_sound(seed):
    rng = random.Random(seed)
    for machine in islice(machines("pretraining", seed), 50):
        pieces = solution(machine, rng, 0.9)
        text = "".join(piece.text for piece in pieces)
        bare = "Try" not in text
        boxed = int(text.rsplit("{", 1)[1].removesuffix("}."))
        assert boxed == machine.answer or bare
        assert [int(p.text) for p in pieces if not p.learned] == [
            int(p.text) for p in pieces if p.text.strip().isdecimal() and int(p.text) != machine.answer
        ]
        for line in text.splitlines():
            head, colon, tail = line.partition(":")
            if colon and head.startswith(("Try", "Wait", "Hmm")):
                x = int(next(word for word in head.split() if word.isdecimal()))
                values = [int(word.rstrip(".")) for word in tail.split() if word.rstrip(".").isdecimal()]
                assert values == machine.run(x)
                assert tail.endswith("Yes." if x == machine.answer else "No.")
