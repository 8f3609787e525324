"""Texts that a model may write to no good end: each is read in bounded time, or given up, and never called right."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from o1p_jax.grading.grader import Grader

SIZES = (8_000, 100_000)
UNITS = [
    " ", "{", "}", "\\", "$", "*", "#", "(", ")", "[", "1", "9,", ",", "=", ":", "|", "^", "_", "-", "\n", "&", "\t \n",
    r"\boxed{", r"\mathbf{", r"\text{", r"\frac{1}{", r"\sqrt{", "[1^", "x^{", "answer is ",
    "answer ", "Answer:\n",
    "**", "####", "#### ", "= 1 ", "\\pm ", "1 to ", "or ", "<think>", "</think>", "1/", "sin", "(1,", r"\left(", "½",
    "²", "answer is the answer ", r"\begin{cases}", r"1\\", "₂_", "1:", "1.", "e9", "twelve ", "mod ", "base ", "US$",
    "Wait, ", "but, so, ", ". > ", "let me just ", "Try 1: yes ", "re-", "I should double-", "= 12. Hmm. ",
    "is 1", "is 1)*", "be ",
]  # fmt: skip


def hostile_texts() -> list[str]:
    texts = [unit * (size // len(unit)) for unit in UNITS for size in SIZES]
    return texts + [f"The answer is{text}x" for text in texts] + [rf"\boxed{{{text[:990]}}}" for text in texts[::2]]


def test_reading_hostile_texts_takes_bounded_time():
    """The system ends the process after thirty times the processor time that it needs."""
    code = "from test_hostile import hostile_texts, read_all\nread_all(hostile_texts())\nprint('all read')"
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        text=True,
        capture_output=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.stdout.strip() == "all read", done.stderr[-2000:]


def read_all(texts: list[str]) -> None:
    """Reads the texts by everything that runs in the main process."""
    from o1p_jax.grading.answers import quick_equal
    from o1p_jax.grading.extract import final_answer, first_answer, stated
    from o1p_jax.grading.passes import cut

    for text in texts:
        final_answer(text)
        stated(text)
        first_answer(text, "12")
        cut(text, ["12"], text[:1000])
        quick_equal(text, "12")
        quick_equal(text[:1000], r"\frac{1}{3}")
        quick_equal("12", text)


@pytest.mark.parametrize(
    "gold", ["7" * 6000, "0." + "3" * 6000, r"\mathbf{" * 20_000 + "1" + "}" * 20_000, "1e" + "9" * 500]
)
def test_a_gold_answer_that_is_too_long_is_refused(gold):
    with Grader(workers=1) as grader:
        (grade,) = grader.grade_many([(r"\boxed{12}", gold)])
    assert grade.status in ("bad_gold", "wrong")


HOSTILE_ANSWERS = [
    "9" * 900, "1e999999999", "9^{9^{9^{9}}}", "((((((9!)!)!)!)!)!)!",
    r"\frac{1}{" * 90 + "1", r"\sqrt{" * 150 + "2" + "}" * 150, "(" * 490 + "1" + ")" * 490, "x^" * 400 + "2",
    r"\sum_{k=1}^{10^{12}} \frac{1}{k}", "1+" * 400 + "1",
    "(x+1)^{100000}", "(1+x+y+z)^{500}", r"\pm" * 300, "1,2,\\ldots,10^9",
    "1,2,\\ldots,1000000000", "__import__('os').system('touch /tmp/owned')", r"\log(\log(\log(0)))", "0/0",
    r"\frac{0}{0}", "\ud800", "\0", "1;" * 400, "a=" * 400, "x<" * 300 + "x",
    r"\{x | " * 100 + "x>1", "{" * 500 + "}" * 500, "1 " * 400, "A" * 900, "1:2" * 200,
    "0x" + "F" * 800, "(-1)^{0.1234567}", r"\infty - \infty", "nan", r"|||||||x|||||||",
    "1" + "0" * 800 + " \\pmod{3}", r"\gamma" * 150, "x_{" * 200, r"\text{" * 190, r"\frac{d}{dx}" * 80 + "x",
    "½" * 300, "²" * 500, "[1^" * 300, r"\begin{cases}" * 60, "or " * 300, "…" * 300, "1," * 400,
    r"\lim_{x \to 0} \frac{\sin x}{x}", "3 hours " * 100, "January " * 100,
]  # fmt: skip


def test_hostile_answers_are_given_up_and_the_rest_is_graded():
    assert len(HOSTILE_ANSWERS) >= 48
    pairs = [(rf"\boxed{{{answer}}}", "x+12") for answer in HOSTILE_ANSWERS]
    with Grader(workers=2, timeout_s=1) as grader:
        grades = grader.grade_many([*pairs, (r"\boxed{1+x}", "x+1")])
    assert {grade.status for grade in grades[:-1]} <= {"wrong", "unparsed", "timeout"}
    assert grades[-1].status == "correct"
