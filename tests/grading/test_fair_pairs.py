"""The grader agrees with a fair teacher on every kind of answer, and never calls a wrong answer right.

fair_pairs.tsv holds a pair a line: kind, the teacher's verdict, solution (↵ is a line break) and gold answer.
"""

from pathlib import Path

import pytest

from o1p_jax.grading.grader import Grader

KNOWN = {(r"\boxed{2x = 14, x = 7}", "7"), (r"\boxed{[1,1]}", r"\{1\}")}
"""Right pairs that the grader calls wrong: (solution, gold answer). At most three."""

_, *LINES = Path(__file__).with_name("fair_pairs.tsv").read_text(encoding="utf-8").splitlines()
PAIRS = [tuple(line.replace("↵", "\n").split("\t")) for line in LINES]
KINDS = list(dict.fromkeys(kind for kind, *_ in PAIRS))


@pytest.fixture(scope="module")
def statuses():
    with Grader(workers=2) as grader:
        grades = grader.grade_many([(solution, gold) for _, _, solution, gold in PAIRS])
    return {pair: grade.status for pair, grade in zip(PAIRS, grades, strict=True)}


def test_every_kind_has_right_and_wrong_pairs():
    assert len(PAIRS) >= 300 and len(KNOWN) <= 3
    for kind in KINDS:
        assert {pair[1] for pair in PAIRS if pair[0] == kind} == {"right", "wrong"}, kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_wrong_answer_is_called_right(statuses, kind):
    wrong = [pair for pair in PAIRS if pair[:2] == (kind, "wrong")]
    assert [pair for pair in wrong if statuses[pair] == "correct"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_called_right(statuses, kind):
    right = [pair for pair in PAIRS if pair[:2] == (kind, "right")]
    assert {pair[2:] for pair in right if statuses[pair] != "correct"} == KNOWN & {pair[2:] for pair in right}


def test_who_wants_may_count_unfinished_work():
    pairs = [(r"\boxed{17 * 6 - 9}", "93"), ("The answer is 7 + 5.", "12"), (r"\boxed{7 + 6}", "12")]
    with Grader(workers=1, allow_unfinished=True) as grader:
        assert [grade.status for grade in grader.grade_many(pairs)] == ["correct", "correct", "wrong"]
