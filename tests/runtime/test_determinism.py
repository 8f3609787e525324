"""The switch for the same bits: flags that XLA knows, and vLLM's variable."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import os
from o1p_jax.runtime.determinism import fix_bits

os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=false"
fix_bits()
fix_bits()
print(os.environ["XLA_FLAGS"], os.environ["VLLM_BATCH_INVARIANT"])
import jax

jax.devices()  # XLA ends the process over a flag that it does not know
"""


def test_xla_knows_the_flags_and_they_are_set_once():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=Path(__file__).parents[2], capture_output=True, text=True, env=os.environ
    )
    expected = "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0 1"
    assert (done.returncode, done.stdout.strip()) == (0, expected)
