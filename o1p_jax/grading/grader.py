"""A solution is graded: its final answer is cut out of the text and compared with the gold answer.

`answers.quick_equal` settles most pairs. The rest go to math-verify, one task a pair, in worker processes with a time
limit, a memory limit and an environment without secrets: the text was written by a model, and symbolic algebra may
hang or eat all memory on such a text (towers of powers do). A user's own grader runs in the same processes.
"""

import logging
import math
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, Literal, NamedTuple

from o1p_jax.grading.answers import clean, quick_equal
from o1p_jax.grading.extract import final_answer
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.user_code import UserFunction

Status = Literal["correct", "wrong", "unparsed", "timeout", "bad_gold"]

_FLAG = "grading.grader"
_PATIENCE = 20  # seconds on the clock for each of processor time
_MEMORY = 4 << 30  # bytes of address space a worker may have
_ENVIRONMENT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}


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
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: int = 5,
        own: str | None = None,
        unclosed_thought: bool = False,
    ):
        self._workers = workers or min(os.cpu_count() or 1, 16)
        self._timeout_s = timeout_s
        self._unclosed_thought = unclosed_thought
        self._own = None if own is None else UserFunction.read(_FLAG, own)
        self._pool: Any = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._pool is not None:
            (self._pool.close if kind is None else self._pool.stop)()
            self._pool.join()

    def grade_many(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Returns the grade of each (solution's text, gold answer), in order.

        Raises BadInput where a user's grader raises.
        """
        if self._own is not None:
            return self._grade_by(self._own, pairs)
        answers = [(final_answer(text, self._unclosed_thought), gold) for text, gold in pairs]
        verdicts: dict[tuple[str | None, str], Status] = {}
        pending = {}
        for pred, gold in dict.fromkeys(answers):
            if pred is None:
                verdicts[pred, gold] = "unparsed"
            elif (equal := quick_equal(pred, gold)) is not None:
                verdicts[pred, gold] = "correct" if equal else "wrong"
            else:
                pending[pred, gold] = self._schedule(_verify, pred, gold, self._timeout_s)
        for pair, future in pending.items():
            verdicts[pair] = _outcome(future)
        return [Grade(pred, verdicts[pred, gold]) for pred, gold in answers]

    def check(self) -> None:
        """Loads a user's grader in a worker, if there is one. Raises BadInput where it can't be loaded."""
        if self._own is not None and _outcome(self._schedule(_load_own, self._own, self._timeout_s)) == "timeout":
            raise self._own.error(
                f"loading the file took more than grading.timeout_s={self._timeout_s} or {_MEMORY >> 30} GiB, or ended "
                "the process; do less at its top level"
            )

    def _grade_by(self, own: UserFunction, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """Returns the grades of the user's grader, which decides every pair; equal pairs are decided once."""
        pending = {pair: self._schedule(_grade_own, own, *pair, self._timeout_s) for pair in dict.fromkeys(pairs)}
        verdicts = {pair: _outcome(future) for pair, future in pending.items()}
        if undecided := list(verdicts.values()).count("timeout"):
            say(
                f"{own.flag}={own.label}: {undecided} of {len(verdicts)} solutions stay undecided: the function took "
                f"more than grading.timeout_s={self._timeout_s} or {_MEMORY >> 30} GiB, or ended its process"
            )
        return [Grade(final_answer(text, self._unclosed_thought), verdicts[text, gold]) for text, gold in pairs]

    def _schedule(self, task: Any, *arguments: Any) -> Any:
        return self._start().schedule(task, args=arguments, timeout=_PATIENCE * self._timeout_s)

    def _start(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["math_verify", __name__])
            with _scrubbed_environment():
                forkserver.ensure_running()
            self._pool = ProcessPool(max_workers=self._workers, initializer=_confine, context=context)
        return self._pool


def source_digest(own: str | None) -> str | None:
    """Returns the SHA-256, in hex, of the file of a user's grader, FILE.py:NAME, or None; the grades depend on it."""
    return None if own is None else UserFunction.read(_FLAG, own).digest


def _outcome(future: Any) -> Status:
    from pebble import ProcessExpired

    try:
        return future.result()
    except (FutureTimeout, ProcessExpired, MemoryError, RecursionError):
        return "timeout"


@contextmanager
def _scrubbed_environment() -> Iterator[None]:
    """Hides the environment's secrets inside the block, where the fork server is started: no worker then has them."""
    saved = dict(os.environ)
    for name in saved.keys() - _ENVIRONMENT:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(saved)


def _confine() -> None:
    """Limits what a worker may use; the function runs first in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    for name in os.environ.keys() - _ENVIRONMENT:  # in case a fork server was running already
        del os.environ[name]
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)  # math-verify would print the texts that it can't read


def _limit_cpu(seconds: int) -> None:
    """Lets the worker use `seconds` more seconds of processor time before the system kills it."""
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _load_own(own: UserFunction, cpu_s: int) -> None:
    """Loads the user's grader in a worker, before the grader's first verdict there."""
    _limit_cpu(cpu_s)
    own.load(arguments=2)


def _grade_own(own: UserFunction, text: str, gold: str, cpu_s: int) -> Status:
    """Returns, in a worker, the user's verdict on a solution.

    What the user's function raises ends the run: nobody knows what the grade should be.
    """
    _limit_cpu(cpu_s)
    function = own.load(arguments=2)
    _limit_cpu(cpu_s)  # loading the file does not count
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


def _verify(pred: str, gold: str, cpu_s: int) -> Status:
    """Returns, in a worker, math-verify's verdict on a pair of answers.

    math-verify's own alarms are off: the system kills what takes too long, in C code too.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    _limit_cpu(cpu_s)
    targets = (LatexExtractionConfig(), ExprExtractionConfig())
    # math-verify reads an answer best inside a formula (bare, it misses a fifth of MATH's golds); a parsed expression
    # comes with the text it was read from, and a text alone was not understood.
    parsed_gold = parse(f"${clean(gold)}$", targets, parsing_timeout=None)
    if all(isinstance(x, str) for x in parsed_gold):
        return "bad_gold"
    parsed_pred = parse(f"${clean(pred)}$", targets, parsing_timeout=None)
    if all(isinstance(x, str) for x in parsed_pred):
        return "unparsed"
    return "correct" if verify(parsed_gold, parsed_pred, timeout_seconds=None) else "wrong"
