"""Commands as users run them: processes of their own, without the PyTorch that some tests compare with."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
AS_USERS = Path(__file__).parent / "as_users"


def environment(*path: Path, **variables: str) -> dict[str, str]:
    """Returns the variables for a command on the CPU, with further folders on Python's path."""
    folders = [*map(str, (AS_USERS, *path)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(folders)} | variables


def launch(name: str, *argv: object, **variables: str) -> subprocess.CompletedProcess:
    """Runs a program of launch/ to its end."""
    command = [sys.executable, ROOT / "launch" / name, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**variables), timeout=900)
