import os
import signal
import time

import pytest

from o1p_jax.runtime.errors import Preempted
from o1p_jax.runtime.signals import preemptible, processor_time_limit


def test_preemptible_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Preempted), preemptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_processor_time_is_limited_inside_the_block_alone():
    handler = signal.getsignal(signal.SIGPROF)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s of processor time"), processor_time_limit(0.05):
        while True:
            pass
    with processor_time_limit(1000):
        pass
    assert signal.getsignal(signal.SIGPROF) is handler and signal.getitimer(signal.ITIMER_PROF) == (0, 0)
