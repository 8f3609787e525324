import os
import signal
import time

import pytest

from o1p_jax.runtime.errors import Preempted
from o1p_jax.runtime.signals import preemptible


def test_preemptible_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Preempted), preemptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before
