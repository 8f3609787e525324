"""Compiled programs are kept, where JAX was not told otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax
from o1p_jax.devices.mesh import set_up_devices

found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
set_up_devices("2x1")
print(jax.jit(lambda x: x * 2 + 1)(jax.numpy.arange(3.0)), jax.device_count())
print(sum(name.endswith("cache_misses") for name in found), sum(name.endswith("cache_hits") for name in found))
"""


def started(cache: Path, **environment: str) -> list[str]:
    names = {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    kept |= {"XDG_CACHE_HOME": str(cache)} | environment
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, env=kept)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_second_process_compiles_nothing(tmp_path):
    first, second = started(tmp_path), started(tmp_path)
    assert first[0] == second[0] == "[1. 3. 5.] 2"
    misses, hits = map(int, first[1].split())
    assert misses > 0 and hits == 0
    assert second[1].split() == ["0", str(misses)]


def test_a_folder_that_jax_was_told_of_has_its_way(tmp_path):
    started(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert (tmp_path / "own").is_dir() and not (tmp_path / "o1p_jax").exists()


def test_a_cache_that_cant_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").touch()
    assert started(tmp_path / "file")[0] == "[1. 3. 5.] 2"


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b""])
def test_a_damaged_program_is_compiled_again(tmp_path, damage):
    first = started(tmp_path)
    for file in (tmp_path / "o1p_jax" / "compiled").glob("*/*-cache"):
        file.write_bytes(damage(file.read_bytes()))
    assert started(tmp_path) == first
