"""Worker processes that may be killed at any time: by their limits, by the system, by a user.

A task that uses up its time or its memory, or ends its process by itself, has no result. A task whose process was ended
from outside, or whose fork server was, is done again, so that the results are those of an undisturbed run.
"""

import ctypes
import logging
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from o1p_jax.runtime.errors import BadInput

_PATIENCE = 20  # seconds on the clock for each of processor time
MEMORY = 4 << 30
"""Bytes of address space that a worker may have."""
_ENVIRONMENT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
_TRIES = 5
_PR_SET_PDEATHSIG = 1
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, 255}
"""Exit codes of workers that others ended; multiprocessing gives 255 where the fork server is gone."""


class Workers:
    """Worker processes, which start at the first task. `timeout_s`: seconds of processor time for a task."""

    def __init__(self, count: int, timeout_s: int):
        self._count = count
        self._timeout_s = timeout_s
        self._pool: Any = None

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Returns function(*a) for each of the arguments, None where a task ran into its limits.

        Raises what a task raises. A task whose worker is killed from outside is tried a few times.
        """
        results: dict[int, Any] = {}
        for _ in range(_TRIES):
            waiting = [i for i in range(len(arguments)) if i not in results]
            if not waiting:
                break
            results |= self._round(function, {i: arguments[i] for i in waiting})
        return [results.get(i) for i in range(len(arguments))]

    def _round(self, function: Callable[..., Any], tasks: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Runs each task once, and returns the results of those whose workers nobody ended."""
        pool = self.start()
        futures: dict[Any, int] = {}
        results: dict[int, Any] = {}
        try:
            for i, task in tasks.items():
                futures[pool.schedule(_limited, args=(function, self._timeout_s, task), timeout=self._clock)] = i
        except RuntimeError:  # a worker was killed while it was idle, which pebble takes for the end of the pool
            pass
        waiting, since = set(futures), time.monotonic()
        while waiting and pool.active and time.monotonic() - since < 2 * self._clock:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            since = time.monotonic() if done else since
            for future in done:
                results |= _outcome(future, futures[future])
        if waiting or not pool.active:
            self.close(at_once=True)
        return results

    @property
    def _clock(self) -> int:
        return _PATIENCE * self._timeout_s

    def start(self) -> Any:
        """Returns the pool of processes, started anew if there is none that works. Raises BadInput if it can't be."""
        if self._pool is not None and not self._pool.active:
            self.close(at_once=True)
        faults: list[BaseException] = []
        while self._pool is None:
            try:
                self._pool = _started(self._count)
            except (OSError, ImportError, BrokenProcessPool) as e:
                faults.append(e.__cause__ or e)
                if len(faults) == _TRIES:
                    raise BadInput(
                        f"the grader's processes can't be started ({faults[-1]!r}); they need semaphores in shared "
                        "memory: mount /dev/shm (docker run --shm-size=1g)"
                    ) from e
                time.sleep(0.1)  # the fork server was killed meanwhile, and it may take a moment to be gone
        return self._pool

    def close(self, *, at_once: bool) -> None:
        """Ends the processes, `at_once` or when their tasks are done."""
        if self._pool is not None:
            (self._pool.stop if at_once else self._pool.close)()
            self._pool.join()
            self._pool = None


def _started(count: int) -> Any:
    """Returns a pool of `count` processes, which run; leaves none behind where they can't be started."""
    from pebble import ProcessPool

    context = _Context()
    context.set_forkserver_preload(["o1p_jax.grading.algebra", "o1p_jax.grading.grader"])
    pool = ProcessPool(max_workers=count, initializer=_confine, context=context)
    try:
        if not pool.active:  # pebble starts the processes when it is asked
            raise BrokenProcessPool("they ended at once")
    except BaseException:
        pool.stop()
        pool.join()
        raise
    return pool


def _outcome(future: Any, i: int) -> dict[int, Any]:
    """Returns the result of task i, None where the task is to blame that there is none; empty where others are."""
    from pebble import ProcessExpired

    try:
        return {i: future.result()}
    except ProcessExpired as e:
        return {} if e.exitcode in _FROM_OUTSIDE else {i: None}
    except (BrokenProcessPool, CancelledError):
        return {}
    except (FutureTimeout, MemoryError, RecursionError):
        return {i: None}


_LOCK = threading.Lock()
"""Held while a process is started: what is changed for the start is of the whole interpreter."""


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the name is multiprocessing's
        # Pebble starts workers later too, and multiprocessing the fork server with any of them if it is gone.
        with _LOCK, _main_left_alone(), _scrubbed_environment():
            return ForkServerProcess._Popen(process_obj)  # type: ignore[attr-defined]


class _Context(ForkServerContext):
    Process = _Process  # type: ignore[assignment]


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Has the processes that are started inside the block not run the user's program, which they do not need."""
    prepared = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        return {key: value for key, value in prepared(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = prepared


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
    with suppress(AttributeError, OSError):  # Linux: dies with the fork server, without which nobody would end it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in os.environ.keys() - _ENVIRONMENT:  # in case a fork server was running already
        del os.environ[name]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)  # math-verify would print the texts that it can't read


def limit_cpu(seconds: int) -> None:
    """Lets the worker use `seconds` more seconds of processor time before the system kills it."""
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _limited(function: Callable[..., Any], cpu_s: int, arguments: tuple[Any, ...]) -> Any:
    limit_cpu(cpu_s)
    return function(*arguments)
