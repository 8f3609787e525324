"""Final answers, equality, and workers that survive what models write."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from hard_pairs import RIGHT, WRONG
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.grading.answers import quick_equal
from o1p_jax.grading.extract import final_answer
from o1p_jax.grading.grader import Grade, Grader
from o1p_jax.grading.workers import Workers

LABELLED = Path(__file__).parents[3] / "shared/data/gsm8k/example_model_solutions.jsonl"
TOWER = "10^{10^{10^{10^{10}}}}"


def boxed(answer):
    return rf"So we get \boxed{{{answer}}}."


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2) as grader:
        yield grader


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"first \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{12} but then \boxed{13", "12"),
        (r"\boxed{3 + {4}", None),
        (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"<think>\boxed{1}</think>It is \boxed{2}", "2"),
        (r"<think>\boxed{1}</think>It is two.", None),
        (r"<think>\boxed{1} hm", None),
        ("9 * 2 = <<9*2=18>>18\n#### 18", "18"),
        ("The answer is 5. No, the answer is 6.", "6"),
        ("**Answer:** 3.5 meters\n", "3.5 meters"),
        ("The final answer is: $\\frac{1}{2}$.", r"$\frac{1}{2}$"),
        ("She has 4 left\nA: 4", "4"),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        ("", None),
        ("It can't be said.", None),
        (boxed("9" * 1001), None),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


@settings(deadline=None)
@given(st.text(alphabet="\\boxed{}<think/> #answeris:1"))
def test_final_answer_takes_any_text(text):
    answer = final_answer(text)
    assert answer is None or (answer and answer in text)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 150_000,
        "{" * 1_000_000,
        "}" * 1_000_000,
        "answer is " * 100_000,
        "answer" + " " * 1_000_000,
        "\\" * 1_000_001,
        "<think>" * 140_000,
    ],
)
def test_a_megabyte_of_nonsense_takes_no_time(text):
    start = time.process_time()
    final_answer(text + "x")
    assert time.process_time() - start < 2


def test_hard_pairs(grader):
    assert len(RIGHT) + len(WRONG) >= 150
    pairs = [(*pair, "correct") for pair in RIGHT] + [(*pair, "wrong") for pair in WRONG]
    grades = grader.grade_many([(boxed(pred), gold) for pred, gold, _ in pairs])
    assert [(*pair[:2], grade.status) for pair, grade in zip(pairs, grades, strict=True)] == pairs


@pytest.mark.parametrize(("pred", "gold"), RIGHT + WRONG)
def test_every_answer_equals_itself_without_workers(pred, gold):
    assert quick_equal(pred, pred) is True
    assert quick_equal(gold, gold) is True


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_compare_exactly_however_they_are_grouped(a, b):
    assert quick_equal(f"{a:,}", str(b)) is (a == b)
    assert quick_equal(f"${a}.00$", str(a)) is True


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_quick_equal_takes_any_text(a, b):
    assert quick_equal(a, b) in (True, False, None)


def test_statuses(grader):
    grades = grader.grade_many(
        [
            ("no idea", "5"),
            (boxed(r"x^{"), "5"),
            (boxed("x+1"), r"\frac{1}{"),
            (boxed("5"), "5"),
            (boxed("6"), "5"),
            ("", "5"),
        ]
    )
    assert [g.status for g in grades] == ["unparsed", "unparsed", "bad_gold", "correct", "wrong", "unparsed"]
    assert grades[3] == Grade("5", "correct")


def test_a_tower_that_hangs_is_a_timeout_and_the_rest_is_graded():
    pairs = [(boxed("5"), f"{TOWER}+1"), (boxed("x+1"), "1+x"), (boxed(r"\sqrt{8}"), r"2\sqrt{2}")]
    with Grader(workers=1, timeout_s=1) as grader:
        assert [g.status for g in grader.grade_many(pairs)] == ["timeout", "correct", "correct"]


def test_nonsense_answers_are_never_correct():
    answers = ["(" * 400 + "1", r"\frac" * 150, "__import__('os').system('x')", "x" * 1000, "\\" * 999, "\0\ud800"]
    with Grader(workers=1, timeout_s=1) as grader:
        grades = grader.grade_many([(boxed(answer), "x+1") for answer in answers])
    assert {g.status for g in grades} <= {"wrong", "unparsed", "timeout"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_hold_no_secrets_and_little_memory(monkeypatch):
    monkeypatch.setenv("O1P_TEST_SECRET", "hunter2")
    workers = Workers(1, timeout_s=5)
    assert workers.run(os.getenv, [("O1P_TEST_SECRET", "none")]) == ["none"]
    assert workers.run(bytearray, [(8 << 30,)]) == [None]
    workers.close(at_once=True)
    assert os.environ["O1P_TEST_SECRET"] == "hunter2"


def test_fork_server_starts_without_secrets():
    """In a fresh process, because a fork server lives as long as its parent."""
    import subprocess

    code = (
        "from pathlib import Path\nfrom o1p_jax.grading.workers import Workers\nif __name__ == '__main__':\n"
        "  workers = Workers(1, timeout_s=5)\n"
        "  print(workers.run(Path.read_text, [(Path('/proc/self/environ'),)]))\n"
        "  workers.close(at_once=True)"
    )
    script = ["-c", code]
    done = subprocess.run(
        [sys.executable, *script],
        env=os.environ | {"O1P_TEST_SECRET": "hunter2"},
        text=True,
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "PATH=" in done.stdout and "hunter2" not in done.stdout


@pytest.mark.skipif(not LABELLED.exists(), reason="needs the labelled GSM8K solutions")
def test_agrees_with_every_label_of_gsm8k(grader):
    pairs, labels = [], []
    with LABELLED.open() as file:
        for row in map(json.loads, file):
            gold = final_answer(row["ground_truth"])
            for solution in (value for value in row.values() if isinstance(value, dict)):
                pairs.append((solution["solution"], gold))
                labels.append(solution["is_correct"])
    assert len(pairs) == 5276
    assert [g.status == "correct" for g in grader.grade_many(pairs)] == labels
