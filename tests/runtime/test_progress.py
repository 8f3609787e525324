"""What the person who watches is told, by a clock of the test's own."""

import sys
from types import SimpleNamespace

import pytest

from o1p_jax.runtime import progress


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def meter(clock):
    return progress._Meter("train", 100, "steps", 10)


def test_no_rate_and_no_estimate_before_there_is_anything_to_go_by(clock, meter):
    clock.now = 40.0
    assert meter.line() == "train: 10/100 steps"
    meter.advance(0)
    assert meter.line() == "train: 10/100 steps"
    meter.advance(1, "loss 0.5")
    assert meter.line() == "train: 11/100 steps, loss 0.5"  # it may have compiled for most of that time


def test_the_estimate_comes_from_what_was_done_lately(clock, meter):
    clock.now = 100.0  # the first step compiles
    meter.advance()
    for _ in range(3):
        clock.now += 2
        meter.advance()
    assert meter.line() == "train: 14/100 steps, 30.0/min, 0:02:52 left"
    for _ in range(20):  # from now on it is slower, and after a minute nothing else counts
        clock.now += 30
        meter.advance()
    assert meter.line() == "train: 34/100 steps, 2.0/min, 0:33:00 left"


@pytest.mark.parametrize(("per_second", "text"), [(12.34, "12.3/s"), (0.5, "30.0/min"), (0.002, "7.2/h")])
def test_a_rate_is_never_nought(per_second, text):
    assert progress._rate(per_second) == text


def test_a_stage_tells_that_it_runs_before_anything_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.0)
    with progress.track("presample train", total=8, unit="samples", done=4) as bar:
        while not (told := capsys.readouterr().err):
            pass
        bar.advance(4)
    assert told == "presample train: 4/8 samples\n"
    assert capsys.readouterr().err.startswith("presample train: 8/8 samples done in ")


def test_nothing_done_has_no_rate(capsys, clock):
    with progress.track("grade", total=8, unit="shards", done=8):
        pass
    assert capsys.readouterr().err == "grade: 8/8 shards done in 0.0 s\n"


def test_on_a_terminal_a_bar_shows_the_same(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.track("train", total=3, unit="steps") as bar:
        bar.advance(3)
    assert "train: 3/3 steps done in" in capsys.readouterr().err


def test_a_silent_process_says_nothing(monkeypatch, capsys):
    monkeypatch.setenv(progress._SILENT, "1")
    with progress.track("train", total=3, unit="steps") as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""
