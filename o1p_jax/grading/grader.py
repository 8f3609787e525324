"""A solution is graded: its final answer is cut out of the text and compared with the gold answer.

`answers.quick_equal` settles most pairs. The rest go to math-verify, one task a pair, in worker processes with a time
limit, a memory limit and an environment without secrets: the text was written by a model, and symbolic algebra may
hang or eat all memory on such a text (towers of powers do). A user's own grader runs in the same processes.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from o1p_jax.grading.answers import MAX_ANSWER, quick_equal
from o1p_jax.grading.extract import final_answer, stated
from o1p_jax.grading.workers import MEMORY, Workers, limit_cpu
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.user_code import UserFunction

Status = Literal["correct", "wrong", "unparsed", "timeout", "bad_gold"]

_FLAG = "grading.grader"


class Grade(NamedTuple):
    """The verdict on one solution."""

    pred: str | None
    """The final answer that `extract.final_answer` finds in the solution, whoever grades; None if there is none."""
    status: Status
    """correct; wrong; unparsed: no answer, or none that can be read; timeout: equality could not be decided within
    the time and memory allowed, or the process that decided it died; bad_gold: the gold answer can't be read."""


class Grader:
    """A grader grades solutions. It is a context manager, because it may hold worker processes.

    The processes start at the first pair that needs them. `timeout_s` is for one pair, in seconds of processor time: a
    busy machine does not change a grade. `own` names a user's grader, FILE.py:NAME, which then decides every pair.
    `unclosed_thought` says whether a thought that is not closed may hold the answer.
    With `allow_unfinished`, 17 * 6 - 9 is right where the gold answer is 93.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: int = 5,
        own: str | None = None,
        unclosed_thought: bool = False,
        allow_unfinished: bool = False,
    ):
        self._workers = Workers(workers or min(os.cpu_count() or 1, 16), timeout_s)
        self._timeout_s = timeout_s
        self._unclosed_thought = unclosed_thought
        self._own = None if own is None else UserFunction.read(_FLAG, own)
        self._allow_unfinished = allow_unfinished

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._workers.close(at_once=kind is not None)

    def grade_many(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Returns the grade of each (solution's text, gold answer), in order.

        A gold answer that holds a whole solution is read by its last box. Raises BadInput where a user's grader raises.
        """
        if self._own is not None:
            return self._grade_by(self._own, pairs)
        golds = {gold: stated(gold) for _, gold in pairs}
        answers = [(final_answer(text, self._unclosed_thought), golds[gold]) for text, gold in pairs]
        verdicts: dict[tuple[str | None, str], Status] = {}
        undecided: list[tuple[str, str]] = []
        for pred, gold in dict.fromkeys(answers):
            if len(gold) > MAX_ANSWER:
                verdicts[pred, gold] = "bad_gold"
            elif pred is None:
                verdicts[pred, gold] = "unparsed"
            elif (equal := quick_equal(pred, gold)) is not None:
                verdicts[pred, gold] = "correct" if equal else "wrong"
            else:
                undecided.append((pred, gold))
        found = self._run(_verify, [(*pair, self._allow_unfinished) for pair in undecided])
        verdicts |= dict(zip(undecided, found, strict=True))
        return [Grade(pred, verdicts[pred, gold]) for pred, gold in answers]

    def check(self) -> None:
        """Loads a user's grader in a worker, if there is one. Raises BadInput where it can't be loaded."""
        if self._own is not None and self._run(_load_own, [(self._own,)]) == ["timeout"]:
            raise self._own.error(
                f"loading the file took more than grading.timeout_s={self._timeout_s} or {MEMORY >> 30} GiB, or ended "
                "the process; do less at its top level"
            )

    def _grade_by(self, own: UserFunction, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Returns the grades of the user's grader, which decides every pair; equal pairs are decided once."""
        unique = list(dict.fromkeys(pairs))
        verdicts = dict(
            zip(unique, self._run(_grade_own, [(own, *pair, self._timeout_s) for pair in unique]), strict=True)
        )
        if undecided := list(verdicts.values()).count("timeout"):
            say(
                f"{own.flag}={own.label}: {undecided} of {len(verdicts)} solutions stay undecided: the function took "
                f"more than grading.timeout_s={self._timeout_s} or {MEMORY >> 30} GiB, or ended its process"
            )
        return [Grade(final_answer(text, self._unclosed_thought), verdicts[text, gold]) for text, gold in pairs]

    def _run(self, task: Callable[..., Status], arguments: Sequence[tuple[Any, ...]]) -> list[Status]:
        return ["timeout" if result is None else result for result in self._workers.run(task, arguments)]


def source_digest(own: str | None) -> str | None:
    """Returns the SHA-256, in hex, of the file of a user's grader, FILE.py:NAME, or None; the grades depend on it."""
    return None if own is None else UserFunction.read(_FLAG, own).digest


def _load_own(own: UserFunction) -> Status:
    """Loads the user's grader in a worker, before the grader's first verdict there."""
    own.load(arguments=2)
    return "correct"


def _grade_own(own: UserFunction, text: str, gold: str, cpu_s: int) -> Status:
    """Returns, in a worker, the user's verdict on a solution.

    What the user's function raises ends the run: nobody knows what the grade should be.
    """
    function = own.load(arguments=2)
    limit_cpu(cpu_s)  # loading the file does not count
    try:
        verdict = function(text, gold)
    except (MemoryError, RecursionError):
        raise
    except (Exception, SystemExit) as e:
        raise own.error(f"raised {own.raised(e)} (solution {text[:60]!r}, answer {gold[:60]!r})") from e
    if verdict is None:
        return "unparsed"
    if type(verdict).__name__ not in ("bool", "bool_"):  # NumPy's count
        raise own.error(f"must return True, False or None (no answer found), it returned {verdict!r:.60}")
    return "correct" if verdict else "wrong"


def _verify(pred: str, gold: str, allow_unfinished: bool) -> Status:
    """Returns, in a worker, the verdict of algebra on a pair of answers."""
    from o1p_jax.grading.algebra import compare
    from o1p_jax.grading.expressions import Unreadable

    try:
        return "correct" if compare(pred, gold, allow_unfinished) else "wrong"
    except Unreadable as e:
        return "bad_gold" if e.args[0] == "gold" else "unparsed"
    except (MemoryError, RecursionError):
        raise
    except Exception:  # SymPy raises many kinds of errors on what is no mathematics, such as 2i < x
        return "unparsed"
