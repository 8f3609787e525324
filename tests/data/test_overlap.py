"""What counts as the same problem, and that the quick search finds what a slow one finds."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.data import overlap
from o1p_jax.data.embedded import embedded_problems
from o1p_jax.data.overlap import Shared, find_overlap, words

GSM = (
    "Natalia sold 48 clips to her friends in April, and then she sold half as many clips in May. How many clips did "
    "she sell altogether in April and May?"
)
LATEX = r"Let $f(x) = \frac{x^2-1}{x+3}$. Find the sum of all real $x$ such that $f(x) = 1{,}000$."


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (GSM, GSM.upper()),
        (GSM, "  " + GSM.replace(" ", "\n\t")),
        (GSM, GSM.replace(",", "").replace("?", " ?!")),
        (LATEX, r"Let \( f(x)=\frac{x^2 - 1}{x + 3} \). Find the sum of all real \(x\) such that \[f(x)\,=\,1000.\]"),
        (LATEX, r"let $f\left(x\right)\;=\;\frac {x^{2}-1} {x+3}$; find the sum of all real $x$ such that f(x)=1,000"),
        ("It’s a two-digit number – 12 ×3", "it's a two digit number - 12 * 3"),  # noqa: RUF001
        (GSM, GSM.replace("clips", "cl\u00adips\u200b")),
        ("All 12,345 of them", r"All 12\,345 of them"),
        ("**Problem.** What is 2 - 3?", "Problem: what is 2−3?"),  # noqa: RUF001
    ],
)
def test_typography_does_not_count(text, other):
    assert find_overlap([other], [text]) == find_overlap([text], [other]) == [Shared(0, 0, True)]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (GSM, GSM.replace("48", "49")),
        ("What is 2 + 3?", "What is 2 - 3?"),
        ("What is (2 + 3) * 4?", "What is 2 + 3 * 4?"),
        ("What is 3.5?", "What is 35?"),
        ("What is f(1,2)?", "What is f(12)?"),
        ("What is 5!", "What is 5"),
        ("How many of 12 and 13?", "How many of 13 and 12?"),
        ("Is Anna older than Bob?", "Is Bob older than Anna?"),
        ("", ""),
        ("...", "?"),
    ],
)
def test_numbers_signs_and_order_do(text, other):
    assert find_overlap([other], [text]) == find_overlap([text], [other]) == []


def test_other_words_around_the_same_numbers_are_nearly_the_same_only_if_few():
    one, preamble = GSM.replace("friends", "pals"), "Think about this: " + GSM
    assert find_overlap([one], [GSM]) == find_overlap([preamble], [GSM]) == [Shared(0, 0, False)]
    assert find_overlap(["Ben ate 48 figs in one week. How many did he eat a day?"], [GSM]) == []


def test_the_same_goes_before_nearly_the_same_and_the_first_before_later_ones():
    near = GSM.replace("friends", "pals")
    assert find_overlap(["1", near, GSM, GSM], ["2", GSM]) == [Shared(1, 2, True)]
    assert find_overlap([GSM], [near, GSM, GSM]) == [Shared(0, 0, False), Shared(1, 0, True), Shared(2, 0, True)]


def test_templates_with_other_numbers_are_other_problems():
    """The embedded sets are such templates, made disjoint; so no two of them share a problem."""
    sets = {name: [p.problem for p in embedded_problems(name)] for name in ("train", "validation", "test")}
    for one, other in itertools.permutations(sets.values(), 2):
        assert find_overlap(one, other) == []
    assert len(find_overlap(sets["train"], [text.upper() for text in sets["train"]])) == len(sets["train"])


def slow(train: list[str], test: list[str]) -> list[Shared]:
    """By the definition alone: every text with every other."""
    found = []
    for i, text in enumerate(test):
        of_test = words(text)
        pairs = [(j, words(other)) for j, other in enumerate(train) if of_test]
        same = [j for j, other in pairs if other == of_test]
        near = [j for j, other in pairs if overlap._signs(other) == overlap._signs(of_test) and share(other, of_test)]
        if same or near:
            found.append(Shared(i, (same or near)[0], bool(same)))
    return found


def share(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    runs = [{w[i : i + 3] for i in range(max(len(w) - 3, 0) + 1)} for w in (one, other)]
    return 10 * len(runs[0] & runs[1]) >= 7 * len(runs[0] | runs[1])


@given(st.integers(0, 2**32))
def test_the_index_loses_nothing(seed):
    rng = random.Random(seed)
    base = [
        rng.choices(["a", "b", "c", "d", "e", "f", "1", "2", "+", "and", "or"], k=rng.randint(1, 40)) for _ in range(4)
    ]

    def changed(text: list[str]) -> str:
        text = list(text)
        for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 1)] = rng.choices("ghiab", k=rng.randint(1, 2))
        return " ".join(text)

    train, test = ([changed(rng.choice(base)) for _ in range(12)] for _ in range(2))
    assert find_overlap(train, test) == slow(train, test)


@given(st.text(), st.text(" .,;:?!$~\n", max_size=5))
def test_any_text_is_the_same_as_itself_with_other_white_space(text, around):
    spaced = around.replace("!", "") + text + " "
    assert words(spaced) == words(text)
    assert find_overlap([spaced], [text]) == ([Shared(0, 0, True)] if words(text) else [])
