"""A user's grader decides alone, in processes that may hang, crash, eat memory and see no secret."""

import pytest

from o1p_jax.grading.grader import Grade, Grader, source_digest
from o1p_jax.runtime.errors import BadInput


@pytest.fixture
def grader(tmp_path):
    """Writes a grader `mine` with this body; returns a started `Grader` that uses it."""
    started = []

    def write(body: str, **options) -> Grader:
        path = tmp_path / "mine.py"
        path.write_text(f"import os, time\n\n\ndef mine(solution, answer):\n    {body}\n")
        started.append(Grader(workers=1, timeout_s=1, own=f"{path}:mine", **options).__enter__())
        return started[-1]

    yield write
    for one in started:
        one.__exit__(KeyboardInterrupt)  # ends workers that hang


def test_it_alone_decides(grader):
    own = grader("return None if not solution else solution.split()[-1] == answer")
    own.check()
    pairs = [("it is 5", "5"), (r"\boxed{5} or 6", "5"), ("", "5"), ("it is 5", "5"), ("it is 5", "6")]
    assert own.grade_many(pairs) == [
        Grade(None, "correct"), Grade("5", "wrong"), Grade(None, "unparsed"), Grade(None, "correct"),
        Grade(None, "wrong"),
    ]  # fmt: skip


def test_equal_pairs_are_decided_once(grader, tmp_path):
    own = grader(f"open({str(tmp_path / 'calls')!r}, 'a').write('x'); return True")
    own.grade_many([("a", "1")] * 5 + [("b", "1")] * 5)
    assert (tmp_path / "calls").read_text() == "xx"


@pytest.mark.parametrize(
    "harm",
    ["while True: pass", "bytearray(8 << 30)", "os._exit(3)", "os.abort()", "return mine(solution, answer)"],
    ids=["hangs", "memory", "leaves", "crashes", "recursion"],
)
def test_what_ends_a_worker_leaves_the_solution_undecided_and_says_so(grader, capsys, harm):
    own = grader(f"if solution == 'bad':\n        {harm}\n    return True")
    grades = own.grade_many([("bad", "1"), ("good", "1")])
    assert [grade.status for grade in grades] == ["timeout", "correct"]
    said = capsys.readouterr().err
    assert "grading.grader=mine.py:mine: 1 of 2 solutions stay undecided" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "raised ZeroDivisionError in line 5: division by zero (solution 'it is 5', answer '5')"),
        ("raise SystemExit('bye')", "raised SystemExit in line 5: bye"),
        ("return 'correct'", "must return True, False or None (no answer found), it returned 'correct'"),
        ("return 1", "it returned 1"),
    ],
)
def test_what_it_raises_ends_the_run_in_one_line(grader, body, message):
    with pytest.raises(BadInput) as error:
        grader(body).grade_many([("it is 5", "5")])
    assert "grading.grader=" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_numpys_booleans_count(grader):
    own = grader("import numpy; return numpy.array([1.0])[0] == float(answer)")
    assert [g.status for g in own.grade_many([("", "1"), ("", "2")])] == ["correct", "wrong"]


def test_it_sees_no_secrets(grader, monkeypatch):
    monkeypatch.setenv("O1P_TEST_SECRET", "hunter2")
    own = grader("return 'O1P_TEST_SECRET' not in os.environ and 'hunter2' not in str(dict(os.environ))")
    assert own.grade_many([("x", "y")])[0].status == "correct"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(solution, answer): return True", "has no mine; its functions: other"),
        ("def mine(solution): return True", "is called with 2 arguments"),
        ("def mine(", "SyntaxError"),
        ("while True: pass", "do less at its top level"),
        ("import os; os._exit(1)", "do less at its top level"),
    ],
)
def test_check_refuses_what_cannot_be_loaded(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput) as error, Grader(workers=1, timeout_s=1, own=f"{path}:mine") as own:
        own.check()
    assert f"grading.grader={path}:mine: " in str(error.value) and message in str(error.value)


def test_a_missing_file_is_refused_at_once(tmp_path):
    with pytest.raises(BadInput, match="can't be read from"):
        Grader(own=f"{tmp_path}/none.py:mine")
    with pytest.raises(BadInput, match="can't be read from"):
        source_digest(f"{tmp_path}/none.py:mine")
    assert source_digest(None) is None
