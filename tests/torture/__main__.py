"""Runs trials of each kind, judges them, and prints a table; ends with 1 where one failed."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

# So that the trials' processes need not import it again.
from transformers import AutoTokenizer  # noqa: F401

import o1p_jax.stages.pipeline  # noqa: F401
from o1p_jax.runtime.progress import silence
from tests.torture import damages, disks, inputs, kills, processes, texts
from tests.torture.job import Home

KINDS: dict[str, tuple[ModuleType, int, str]] = {
    "kills": (kills, 36, "kills (two of three with -9) and signals, three to a run"),
    "disks": (disks, 12, "full disks, or files that may not grow"),
    "processes": (processes, 12, "processes below a job killed or stopped"),
    "damages": (damages, 1000, "damaged files"),
    "texts": (texts, 100, "hostile texts"),
    "inputs": (inputs, 200, "bad flags, configurations and files"),
}
"""Kind -> its module, the number of trials, and what a trial is."""
PATIENCE_S = 900


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", type=int, help="the number of the one trial that is done")
    parser.add_argument("--folder", type=Path, help="an empty folder, which is kept, or one kept by an earlier call")
    for kind, (_, count, what) in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count, help=what)
    args = parser.parse_args(argv)
    print(f"seed {args.seed}", flush=True)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    home = Home(folder)
    os.environ.update(home.environment)
    silence()
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX is imported here, and starts no thread
    if not home.rollouts.exists() and (fault := attempt(home.write_inputs)):
        sys.exit(fault)
    home.do_undisturbed()
    print(f"the undisturbed job takes {home.seconds:.0f} s", flush=True)
    table = ["| kind | n | passed | seconds |", "| --- | ---: | ---: | ---: |"]
    failed = False
    for kind in args.kinds:
        module, _, what = KINDS[kind]
        getattr(module, "prepare", lambda home: None)(home)
        numbers = range(getattr(args, kind)) if args.only is None else [args.only]
        began, passed = time.monotonic(), 0
        for number in numbers:
            rng = random.Random(f"{args.seed} {kind} {number}")
            fault = attempt(lambda module=module, rng=rng, number=number: module.trial(home, rng, number))
            passed += not fault
            if fault:
                print(f"{kind} {number} (--seed={args.seed} --kinds {kind} --only={number}): {fault}", flush=True)
        failed |= passed < len(numbers)
        events = getattr(module, "EVENTS", 1)
        table.append(f"| {what} | {events * len(numbers)} | {events * passed} | {time.monotonic() - began:.0f} |")
        print(table[-1], flush=True)
    print("\n".join(table))
    if args.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def attempt(trial: Callable[[], None]) -> str:
    """Does the trial in a process of its own, which is killed when it takes too long; returns any fault."""
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            fault = ""
            try:
                silent = os.open(os.devnull, os.O_WRONLY)
                for stream in (1, 2):
                    os.dup2(silent, stream)
                trial()
            except AssertionError as e:
                fault = str(e)
            except BaseException:
                fault = traceback.format_exc(limit=-3)
            said.write(fault)
            said.flush()
            os._exit(0)
        deadline = time.monotonic() + PATIENCE_S
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"no end in {PATIENCE_S} s"
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it has left behind
        said.seek(0)
        return said.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
