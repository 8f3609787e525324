"""Is a solution right? Its final answer is cut out of the text and compared with the gold one.

`answers.quick_equal` settles most pairs. The rest go to math-verify, one task a pair, in worker processes with a time
limit, a memory limit and an environment without secrets: the text was written by a model, and symbolic algebra may
hang or eat all memory on it (towers of powers do).
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

Status = Literal["correct", "wrong", "unparsed", "timeout", "bad_gold"]

_PATIENCE = 20  # seconds on the clock for each of processor time
_MEMORY = 4 << 30  # bytes of address space a worker may have
_ENVIRONMENT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}


class Grade(NamedTuple):
    """The verdict on one solution."""

    pred: str | None
    """The final answer found in the text."""
    status: Status
    """correct; wrong; unparsed: no answer, or none that can be read; timeout: equality could not be decided within
    the time and memory allowed; bad_gold: the gold answer can't be read."""


class Grader:
    """Grades solutions; a context manager, because it may hold worker processes.

    They start at the first pair that `quick_equal` leaves open. `timeout_s` is for one pair, in seconds of processor
    time: a busy machine does not change a grade.
    """

    def __init__(self, workers: int | None = None, timeout_s: int = 5):
        self._workers = workers or min(os.cpu_count() or 1, 16)
        self._timeout_s = timeout_s
        self._pool: Any = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._pool is not None:
            (self._pool.close if kind is None else self._pool.stop)()
            self._pool.join()

    def grade_many(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """The grade of each (solution's text, gold answer), in order."""
        answers = [(final_answer(text), gold) for text, gold in pairs]
        verdicts: dict[tuple[str | None, str], Status] = {}
        pending = {}
        for pred, gold in dict.fromkeys(answers):
            if pred is None:
                verdicts[pred, gold] = "unparsed"
            elif (equal := quick_equal(pred, gold)) is not None:
                verdicts[pred, gold] = "correct" if equal else "wrong"
            else:
                pending[pred, gold] = self._start().schedule(
                    _verify, args=[pred, gold, self._timeout_s], timeout=_PATIENCE * self._timeout_s
                )
        for pair, future in pending.items():
            verdicts[pair] = _outcome(future)
        return [Grade(pred, verdicts[pred, gold]) for pred, gold in answers]

    def _start(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["math_verify", __name__])
            with _scrubbed_environment():
                forkserver.ensure_running()
            self._pool = ProcessPool(max_workers=self._workers, initializer=_confine, context=context)
        return self._pool


def _outcome(future: Any) -> Status:
    from pebble import ProcessExpired

    try:
        return future.result()
    except (FutureTimeout, ProcessExpired, MemoryError, RecursionError):
        return "timeout"


@contextmanager
def _scrubbed_environment() -> Iterator[None]:
    """The fork server is started inside this block: what it never had, its workers can't leak."""
    saved = dict(os.environ)
    for name in saved.keys() - _ENVIRONMENT:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(saved)


def _confine() -> None:
    """Runs first in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    for name in os.environ.keys() - _ENVIRONMENT:  # in case a fork server was running already
        del os.environ[name]
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)  # math-verify would print the texts that it can't read


def _verify(pred: str, gold: str, cpu_s: int) -> Status:
    """Runs in a worker. math-verify's own alarms are off: the system kills what takes too long, in C code too."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    limit = math.ceil(time.process_time()) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
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
