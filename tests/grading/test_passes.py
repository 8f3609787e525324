"""Solutions by hand, solutions of the embedded model, whose parts are known, and any text at all."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.data.embedded import machines
from o1p_jax.grading.passes import AFTER, FIRST, KINDS, REPEATED, TO_RIGHT, TO_WRONG, UNCHANGED, cut
from tools.make_embedded.traces import solution


def parts(text: str, right: str, final: str | None = None) -> list[tuple[str, str]]:
    """The stretches of a text as (kind, text), neighbours of one kind as one; the text is made up of them."""
    found = cut(text, [right], final)
    assert "".join(text[s.start : s.end] for s in found.stretches) == text
    together: list[tuple[str, str]] = []
    for start, end, kind in found.stretches:
        before = together.pop()[1] if together and together[-1][0] == kind else ""
        together.append((kind, before + text[start:end]))
    return together


THOUGHT = [
    (FIRST, "Okay. 16 - 3 = 13. Hmm, 13 - 4 = 9, and the result is 9. So the answer is 18.\n"),
    (UNCHANGED, "Wait, let me check that. 9 * 2 = 18.\n"),
    (
        TO_WRONG,
        "But is it a week? Perhaps. 18 * 7, so the answer should be 126.\n"
        "Let me try again: the answer is 127, no doubt.\n",
    ),
    (TO_RIGHT, "Actually, it is a day, so I sell 9 eggs. Alternatively: the answer is 18.\n"),
    (REPEATED, "Wait,  let me check that. 9 * 2 = 18.\n"),
    (UNCHANGED, "Maybe the problem is harder?\n</think>"),
    (AFTER, "\nWait, it is \\boxed{18}. Let me check: \\boxed{17}."),
]
TRIALS = [
    (FIRST, "My first guess is 13.\n"),
    (TO_RIGHT, "Try 13: a 39. No.\nTry 23: a 69. No.\nTry 33: a 99. Yes.\n"),
    (UNCHANGED, "Hmm, what about 43: a 29. No.\nWait, check 33 again: a 99. Yes.\n"),
    (REPEATED, "Wait, check 33 again: a 99. Yes.\n"),
    (UNCHANGED, "Hmm, what about 53:"),  # cut off
]


@pytest.mark.parametrize("expected", [
    THOUGHT,
    TRIALS,
    [(FIRST, "Wait. Let me try x = 3. Hmm, alternatively y.")],
    [(FIRST, "Hmm, x."), (REPEATED, " Hmm, x. Hmm, x.")],
    [(FIRST, "The answer is right, wait for it: it is \\boxed{33}.")],
    [(FIRST, "The answer is clear. Wait, maybe not. It is \\boxed{33}.")],
    [(FIRST, "<think>\n\n</think>\n\n3 * 11 = 33."), (UNCHANGED, " Let me verify: 33 / 11 = 3.")],
    [(FIRST, "<think>Some words. Wait, more of them.</think>So \\boxed{33}."), (TO_WRONG, " Wait, \\boxed{34}.")],
    [(FIRST, "")],
])  # fmt: skip
def test_the_parts_of_a_text(expected):
    right = "18" if expected is THOUGHT else "33"
    assert parts("".join(text for _, text in expected), right) == expected


def test_what_cannot_be_told_without_algebra_counts_as_the_same_answer():
    text = r"So \boxed{\sin(2x)}. Wait, \boxed{2\sin(x)\cos(x)}."
    assert [kind for kind, _ in parts(text, "7")] == [FIRST, UNCHANGED]


def test_an_answer_that_the_grader_found_right_is_right_in_the_text_too():
    text = r"So \boxed{\sin(2x)}. Wait, \boxed{2}. Wait, \boxed{\sin(2x)}."
    right = [r"2\sin(x)\cos(x)", r"\sin(2x)"]
    assert [s.kind for s in cut(text, right, r"\sin(2x)").stretches] == [FIRST, TO_WRONG, TO_RIGHT]
    both = r"So \boxed{\sin(2x)}. Wait, \boxed{2\sin(x)\cos(x)}."
    assert [s.kind for s in cut(both, right, right[0]).stretches] == [FIRST, UNCHANGED]


@pytest.mark.parametrize("seed", range(40))
def test_the_embedded_models_solutions_are_cut_exactly(seed):
    """The pieces that a solution is made of say what each line is for, without a look at the words."""
    rng = random.Random(seed)
    stream = machines("pretraining", seed)
    machine = next(m for m in stream if m.level == 1 + seed % 4)
    text = "".join(piece.text for piece in solution(machine, rng, check_again=0.8))
    thought, mark, final = text.partition("</think>")
    head, guess, tail = thought.partition(" guess is ")
    number, full_stop, rest = tail.partition(".\n")
    expected = [(FIRST, head + guess + number + full_stop)]
    is_right, seen = int(number) == machine.answer, set()
    for line in rest.splitlines(keepends=True):
        kind = REPEATED if line in seen else UNCHANGED if is_right else TO_RIGHT
        is_right |= line.endswith("Yes.\n")
        seen.add(line)
        expected.append((kind, line))
    expected[-1] = (expected[-1][0], expected[-1][1] + mark)
    found = cut(text, [str(machine.answer)], None)
    assert found.is_answered
    assert [(s.kind, text[s.start : s.end]) for s in found.stretches] == [*expected, (AFTER, final)]


PIECES = st.sampled_from(["Wait, ", "\n", ". ", "So the answer is 5", "= 5", "\\boxed{", "}", "6", "<think>",
                          "</think>", "Try 5: ", "Yes.", "Let me check", " ", "x", "é", "[/THINK]"])  # fmt: skip


@given(st.lists(PIECES, max_size=60).map("".join) | st.text(), st.sampled_from([None, "5", "6", "x"]))
def test_the_stretches_of_any_text_join_up_to_it(text, final):
    found = cut(text, ["5"], final)
    ends = [0, *(s.end for s in found.stretches)]
    assert [s.start for s in found.stretches] == ends[:-1] and ends[-1] == len(text)
    kinds = [s.kind for s in found.stretches]
    assert set(kinds) <= set(KINDS) and kinds.count(AFTER) <= 1 and AFTER not in kinds[:-1]
    assert found.is_answered or set(kinds) <= {FIRST, REPEATED}
    assert all(start < end for start, end, _ in found.stretches) or text == ""
