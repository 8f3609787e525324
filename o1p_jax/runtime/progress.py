"""Progress for the person who watches, on stderr: a bar on a terminal, else a plain line every few seconds."""

import functools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_INTERVAL_S = 10.0
_SILENT = "O1P_SILENT"
"""A variable of the environment, so that child processes are silent too."""


class Bar(Protocol):
    """What `track` yields: the display of one stage."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Tells the display that `n` more units are done; `note` (such as a loss) is shown beside the rate."""


@contextmanager
def track(stage: str, *, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Yields a display of how far `stage` is. The `done` units of an earlier run do not count in the rate."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield _RichBar(progress, stage, total, unit, done)
        return
    bar = _PlainBar(stage, total, unit, done)
    yield bar
    say(f"{stage}: {bar.done}/{bar.total} {bar.unit} done in {bar.elapsed:.1f} s ({bar.rate:.1f}/s)")


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


class _Meter:
    """The counts of a stage, its rate and the time that is left."""

    def __init__(self, stage: str, total: int, unit: str, done: int):
        self.stage, self.total, self.unit = stage, total, unit
        self.done = self.start = done
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        return (self.done - self.start) / max(self.elapsed, 1e-9)

    def left(self) -> str:
        """The time that is left as hours:minutes:seconds; "?" before anything is done."""
        if self.rate <= 0:
            return "?"
        seconds = round((self.total - self.done) / self.rate)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


class _PlainBar(_Meter):
    """A display that prints a line every few seconds."""

    def __init__(self, *args):
        super().__init__(*args)
        self.last_line = self.began

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if time.monotonic() - self.last_line >= _PLAIN_INTERVAL_S:
            self.last_line = time.monotonic()
            self.line(note)

    def line(self, note: str = "") -> None:
        say(
            f"{self.stage}: {self.done}/{self.total} {self.unit}, {self.rate:.1f}/s, {self.left()} left"
            + (f", {note}" if note else "")
        )


class _RichBar(_Meter):
    """A display that is a bar on a terminal."""

    def __init__(self, progress: Progress, *args):
        super().__init__(*args)
        self.progress = progress
        self.task = progress.add_task(self.stage, total=self.total, completed=self.done, info="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        info = f"{self.rate:.1f} {self.unit}/s" + (f"  {note}" if note else "")
        self.progress.update(self.task, completed=self.done, info=info)
