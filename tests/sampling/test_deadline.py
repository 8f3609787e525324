"""A process whose foreign code hangs ends by itself, with a line and a code of its own."""

import subprocess
import sys
import time
from pathlib import Path

from o1p_jax.sampling.deadline import Deadline

HANGS = """
import threading
from o1p_jax.sampling.deadline import Deadline

deadline = Deadline(0.2, "the engine")
with deadline:
    pass
with deadline:
    threading.Lock().acquire() and threading.Event().wait()
"""


def test_no_progress_ends_the_process():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", HANGS], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69
    assert done.stderr == (
        "error: the engine made no progress for sampling.timeout_s=0.2 s; run the command again to go on\n"
    )


def test_who_leaves_in_time_goes_on():
    deadline = Deadline(0.2, "nobody")
    for _ in range(3):
        with deadline:
            time.sleep(0.08)
    time.sleep(0.3)
