"""What SIGTERM and SIGINT do inside and after the blocks that handle them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from o1p_jax.runtime import signals
from o1p_jax.runtime.errors import Preempted
from o1p_jax.runtime.signals import ignore_stops, preemptible, processor_time_limit, stop_signals


def test_preemptible_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Preempted), preemptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_passes_through_what_swallows_exceptions():
    with pytest.raises(Preempted, match="stopped by SIGTERM"), preemptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Exception:
            pass


class Stopped:
    """Something in whose destructor a stop comes: Python drops what is raised there."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("busy", [True, False])
def test_a_stop_that_python_drops_comes_again(busy, capfd):
    before = sys.unraisablehook
    with pytest.raises(Preempted, match="stopped by SIGINT"), preemptible():
        Stopped()
        reached = True
        if busy:
            time.sleep(5)
    assert reached and sys.unraisablehook is before and "Traceback" not in capfd.readouterr().err


def test_a_stop_that_comes_twice_is_one_and_a_later_one_acts_as_before_the_block(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with pytest.raises(Preempted), preemptible(), stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # passed on by the parent
        assert stopped == ["SIGINT"]
        now += 60
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_process_about_to_end_is_not_stopped():
    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ignore_stops()
        os.kill(os.getpid(), signal.SIGTERM)
        assert all(signal.getsignal(number) is not handler for number, handler in saved.items())
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def test_a_process_that_ended_well_is_not_killed_while_python_goes_down():
    program = """
import os, signal
from o1p_jax.runtime.entry import main

class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)

late = Late()
main(lambda argv: None)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_processor_time_is_limited_inside_the_block_alone():
    handler = signal.getsignal(signal.SIGPROF)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s of processor time"), processor_time_limit(0.05):
        while True:
            pass
    with processor_time_limit(1000):
        pass
    assert signal.getsignal(signal.SIGPROF) is handler and signal.getitimer(signal.ITIMER_PROF) == (0, 0)
