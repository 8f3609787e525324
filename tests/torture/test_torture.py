"""A sample of each kind of torture, by the command that does all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = ("--kills=1", "--disks=1", "--processes=1", "--damages=12", "--texts=3", "--inputs=6")


@pytest.mark.slow
@pytest.mark.torture
def test_a_sample_of_each_kind_passes():
    command = [sys.executable, "-m", "tests.torture", "--seed=11", *SAMPLE]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
