"""The program `o1p NAME ...` runs one of the commands; `python launch/NAME.py ...` is the same from a checkout."""

import sys
from importlib import import_module
from typing import Any

from o1p_jax.runtime.entry import main as enter
from o1p_jax.runtime.errors import BadInput

COMMANDS = {
    "train": "does the whole job: samples, grades, weighs, trains, exports, evaluates",
    "presample": "samples and grades solutions, which any number of runs can be trained from",
    "evaluate": "compares models on problem sets",
    "compare": "trains several methods from one pool and compares them",
    "export": "writes a run's checkpoint as a Hugging Face folder",
    "plan": "tells whether a run fits a pod, and how fast it could be there",
    "check-parity": "compares our decoder with that of transformers on your model",
    "import-pool": "makes a pool of solutions that another program sampled",
    "export-pool": "writes a pool as a data set",
    "verify": "tells what of a run, a pool or a model is no longer as it was written",
}


def main() -> None:
    """Runs the command that the program's first argument names, on the other arguments."""
    name, *argv = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print("usage: o1p COMMAND [--help] [FLAGS]\n")
        print("\n".join(f"  {command:14}{does}" for command, does in COMMANDS.items()))
        return
    sys.argv = [f"o1p {name}", *argv]
    run(name)


def run(name: str) -> None:
    """Runs the command `name` on the program's arguments, and exits."""
    enter(lambda argv: _module(name).command(argv))


def _module(name: str) -> Any:
    """Imports the module of the command. Raises BadInput where there is no such command."""
    if name not in COMMANDS:
        from o1p_jax.stages import cli

        meant = cli.nearest(name, list(COMMANDS))
        remedy = f"did you mean {' or '.join(meant)}?" if meant else f"there are {', '.join(COMMANDS)}"
        raise BadInput(f"{name}: no such command; {remedy}")
    return import_module(f"o1p_jax.commands.{name.replace('-', '_')}")
