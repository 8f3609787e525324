"""Progress for the person who watches, on stderr: a bar on a terminal, else a plain line every few seconds."""

import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

_FIRST_LINE_S = 1.0
_PLAIN_INTERVAL_S = 10.0
_RECENT_S = 60.0
"""How far back the rate looks: a first step compiles, and solutions that end first are short."""
_SILENT = "O1P_SILENT"
"""A variable of the environment, so that child processes are silent too."""

last_advance = time.monotonic()
"""When this process last showed progress of any kind, by its own monotonic clock, in seconds."""


class Bar(Protocol):
    """What `track` yields: the display of one stage."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Tells the display that `n` more units are done; `note` (such as a loss) is shown beside the rate.

        With 0 it tells that the stage is at work, though no further unit is done.
        """


@contextmanager
def track(stage: str, *, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Yields a display of how far `stage` is. The `done` units of an earlier run do not count in the rate."""
    meter = _Meter(stage, total, unit, done)
    with _rich_bar(meter) if sys.stderr.isatty() and _SILENT not in os.environ else _plain_lines(meter):
        yield meter
    say(f"{stage}: {meter.done}/{total} {unit} done in {meter.elapsed:.1f} s{meter.whole_rate()}")


def begin(what: str, name: str) -> None:
    """Prints the first line of a command, on stdout: what it works on, before anything slow is imported."""
    print(f"{what:9}{name}", flush=True)


def say(line: str) -> None:
    """Prints one line for the person who watches, on stderr."""
    if _SILENT not in os.environ:
        print(line, file=sys.stderr, flush=True)


@functools.cache
def say_once(line: str) -> None:
    """Prints the line for the person who watches, unless this process has printed it before."""
    say(line)


def silence() -> None:
    """From now on this process and its children show nothing, because one process of a job writes its log."""
    os.environ[_SILENT] = "1"


class Rate:
    """How much was done a second, lately."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        """Times of the last minute at which something was done, with what was done by then."""

    def mark(self, done: int) -> None:
        """Notes how much is done by now, altogether."""
        now = time.monotonic()
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[0][0] < now - _RECENT_S:
            self._marks.popleft()

    def per_second(self) -> float | None:
        """Returns the rate since the first mark: what came before it, such as compiling, will not come again."""
        if len(self._marks) < 2:
            return None
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / max(now - then, 1e-9)


class _Meter:
    """The counts of a stage, its rate and the time that is left."""

    def __init__(self, stage: str, total: int, unit: str, done: int):
        self.stage, self.total, self.unit = stage, total, unit
        self.done = self.start = done
        self.note = ""
        self.began = time.monotonic()
        self._rate = Rate()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def advance(self, n: int = 1, note: str = "") -> None:
        global last_advance
        last_advance = time.monotonic()
        self.note = note or self.note
        if n:
            self.done += n
            self._rate.mark(self.done)

    def line(self) -> str:
        """The state in one line: rate and estimate are left out before there is anything that they could rest on."""
        recent = self._rate.per_second()
        parts = [f"{self.stage}: {self.done}/{self.total} {self.unit}"]
        parts += [_rate(recent), f"{_clock((self.total - self.done) / recent)} left"] if recent else []
        return ", ".join(parts + ([self.note] if self.note else []))

    def whole_rate(self) -> str:
        """The rate of the whole stage, in brackets; nothing where nothing was done."""
        done = self.done - self.start
        return f" ({_rate(done / max(self.elapsed, 1e-9))})" if done else ""


def _rate(per_second: float) -> str:
    """A rate with the unit of time in which it is a number that can be read."""
    for seconds, name in ((1, "s"), (60, "min")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.1f}/{name}"
    return f"{per_second * 3600:.1f}/h"


def _clock(seconds: float) -> str:
    """A time as hours:minutes:seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


@contextmanager
def _plain_lines(meter: _Meter) -> Iterator[None]:
    """Prints the meter's line a second after the start and then every few seconds, whatever the stage does."""
    ended = threading.Event()

    def tell() -> None:
        wait = _FIRST_LINE_S
        with suppress(BrokenPipeError):  # the main thread meets it too
            while not ended.wait(wait):
                say(meter.line())
                wait = _PLAIN_INTERVAL_S

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _rich_bar(meter: _Meter) -> Iterator[None]:
    """Shows the meter as a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn
    from rich.text import Text

    class Line(ProgressColumn):
        def render(self, task: Any) -> Text:
            task.completed = meter.done  # drawn ten times a second: the bar follows
            return Text(meter.line())

    with Progress(SpinnerColumn(), BarColumn(), Line(), console=Console(stderr=True), transient=True) as progress:
        progress.add_task(meter.stage, total=meter.total, completed=meter.done)
        yield
