"""benchmarks/gpu.py is meant for machines that lack most of this project's packages; here it runs with small sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LACKING = ("tyro", "grain", "pebble", "math_verify", "openai", "tenacity", "tensorboardX")
WITHOUT = """
import importlib.abc, runpy, sys
class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {lacking}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Lacking())
sys.argv[0] = "benchmarks/gpu.py"
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_it_runs_where_packages_are_lacking(tmp_path):
    command = [sys.executable, "-c", WITHOUT.format(lacking=LACKING), "--small", f"--folder={tmp_path}"]
    done = subprocess.run(
        [*command, "--parts", "parity", "training", "sampler"], cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert [len(rows) for rows in figures["parts"].values()] == [6, 1, 1] and not figures["failed"]
    (step,), (drawn,) = figures["parts"]["training"], figures["parts"]["sampler"]
    assert step["same_bits"] and step["tokens_per_s"] > 0 and drawn["same_tokens"]
    assert "| full | a loop over tiles (no kernel on cpu) |" in (tmp_path / "gpu.md").read_text()
