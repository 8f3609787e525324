"""How a process compiles for its own processors, and keeps its memory."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = """
import os
from o1p_jax.devices.mesh import make_mesh, set_up_devices

set_up_devices("2x1")
make_mesh("2x1")
print(os.environ["XLA_FLAGS"])
"""
MEMORY = """
import sys
from pathlib import Path
import numpy as np
from o1p_jax.devices.cpu import keep_memory


def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if sys.argv[1] == "keep":
    keep_memory()
before = held()
array = np.ones(2**24)
del array
print(held() - before)
"""


def printed(program: str, *arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | environment
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_was_set_from_outside_stays():
    own = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true"
    assert printed(FLAGS) == own
    other = "--xla_cpu_parallel_codegen_split_count=1"
    assert printed(FLAGS, XLA_FLAGS=other) == f"{other} {own}"
    theirs = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=false"
    assert printed(FLAGS, XLA_FLAGS=theirs) == theirs


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory as they do")
def test_memory_that_was_had_once_is_kept():
    assert int(printed(MEMORY, "keep")) > 100 * 2**20 > 10 * 2**20 > int(printed(MEMORY, "leave"))
