"""A process whose foreign code hangs ends by itself, with a line and a code of its own."""

import subprocess
import sys
from pathlib import Path

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


GOES_ON = """
import time
from o1p_jax.sampling.deadline import Deadline

deadline = Deadline(1.0, "nobody")
for _ in range(10):
    with deadline:
        time.sleep(0.3)
time.sleep(1.5)
print("went on")
"""


def test_who_leaves_in_time_goes_on():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", GOES_ON], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
