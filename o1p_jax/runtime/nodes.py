"""SLURM's lists of nodes, such as rack[1-2]-node[003-010,012]-ib,other, are read as the names of hosts."""

import itertools
import re
import shutil
import subprocess

from o1p_jax.runtime.errors import BadInput

_VARIABLE = "SLURM_STEP_NODELIST"
_ITEM = r"(?:[^,\[\]\s]|\[[^\[\]]+\])+"
"""One entry of a list; a comma inside of brackets does not end it."""


def hostnames(nodes: str) -> list[str]:
    """Returns the names of the hosts that the list `nodes` stands for, by SLURM's own command where there is one.

    Raises BadInput for a list that can't be read.
    """
    if (scontrol := shutil.which("scontrol")) is not None:
        done = subprocess.run([scontrol, "show", "hostnames", nodes], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.split():
            return done.stdout.split()
    if not re.fullmatch(f"{_ITEM}(,{_ITEM})*", nodes):
        raise _unreadable(nodes)
    return [name for item in re.findall(_ITEM, nodes) for name in _expanded(item)]


def _expanded(item: str) -> list[str]:
    """Returns the names of one entry of a list; of several brackets the last one counts fastest."""
    parts = re.split(r"\[([^\]]*)\]", item)  # text and the contents of brackets in turn
    choices = [_numbers(part, item) if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _numbers(ranges: str, item: str) -> list[str]:
    """Returns the numbers of 003-010,012, with the zeros that they are written with."""
    found = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise _unreadable(item)
        found += [f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1)]
    return found


def _unreadable(nodes: str) -> BadInput:
    return BadInput(f"{_VARIABLE}={nodes}: can't be read; give --coordinator, --processes and --process instead")
