"""A job of several processes, seen from one of them: its place among the others, and a line when one is lost.

Each is two processes of the system: a supervisor, which imports no JAX, and the worker that does the job. When a
process of the job dies, JAX aborts the others from C++; the supervisor puts one line in the place of that trace.
"""

import glob
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from o1p_jax.errors import BadInput, O1pError, ProcessLost

_WORKER = "O1P_WORKER"
"""Set in a worker's environment: the folder where it leaves the hosts' names for its supervisor."""


_VERDICT_S = 30.0
_LAST_WORDS_S = 2.0  # for the others, who fail of the same cause, to say so themselves


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process's place in its job."""

    coordinator: str | None
    """host:port where process 0 listens; None where JAX asks the machine for all of this, as on a TPU VM."""
    count: int = 0
    index: int = 0
    local_device: int | None = None
    """Which of the GPUs that it sees is this process's own; None: all."""


def find_place(argv: list[str]) -> tuple[Place | None, list[str]]:
    """The place, None where the process is alone, and the arguments that are left.

    Looked for in --coordinator=HOST:PORT --processes=N --process=I, then in JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, then SLURM's variables, then a TPU VM's. `--processes=1` looks no further.
    """
    given: dict[str, str] = {}
    rest = []
    names = ("--coordinator", "--processes", "--process")
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in names:
            given[name] = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    if given.get("--processes") == "1":
        return None, rest
    if not given:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        given = {name: os.environ[name] for name in names if name in os.environ}
    if given:
        return _explicit(given, names), rest
    return _in_slurm(os.environ) or _on_tpu(os.environ), rest


def _explicit(given: dict[str, str], names: tuple[str, str, str]) -> Place | None:
    """The place that three flags or variables of these names give."""
    if missing := [name for name in names if name not in given]:
        raise BadInput(f"{missing[0]}: missing; a job of several processes needs {', '.join(names)}")
    address, count, index = (given[name] for name in names)
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise BadInput(f"{names[0]}={address}: must be HOST:PORT of process 0, such as 10.0.0.1:8476")
    if not count.isdecimal() or int(count) < 1:
        raise BadInput(f"{names[1]}={count}: must be the number of processes")
    if not index.isdecimal() or int(index) >= int(count):
        raise BadInput(f"{names[2]}={index}: must be this process's number, 0 to {int(count) - 1}")
    return Place(coordinator=address, count=int(count), index=int(index)) if int(count) > 1 else None


def _in_slurm(variables: os._Environ | dict[str, str]) -> Place | None:
    """The place of a task that srun started."""
    try:
        count = int(variables.get("SLURM_STEP_NUM_TASKS") or variables["SLURM_NTASKS"])
        nodes, job, index = variables["SLURM_STEP_NODELIST"], variables["SLURM_JOB_ID"], variables["SLURM_PROCID"]
    except KeyError:
        return None
    if count == 1:
        return None
    # "node[003-010,012],other" begins with node003.
    prefix, first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes).groups(default="")  # type: ignore[union-attr]
    several_here = int(variables.get("SLURM_NTASKS_PER_NODE", "0") or 0) > 1 or count > int(
        variables.get("SLURM_STEP_NUM_NODES", count)
    )
    sees_one = len(variables.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) == 1
    return Place(
        coordinator=f"{prefix}{first}:{20000 + int(job) % 20000}",
        count=count,
        index=int(index),
        local_device=int(variables["SLURM_LOCALID"]) if several_here and not sees_one else None,
    )


def _on_tpu(variables: os._Environ | dict[str, str]) -> Place | None:
    """A TPU host may be one of several: JAX finds out, from variables (GKE) or from the machine's metadata."""
    if variables.get("JAX_PLATFORMS", "tpu") not in ("", "tpu"):
        return None
    several = [variables.get(name, "") for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")]
    if any("," in hosts for hosts in several) or "MEGASCALE_COORDINATOR_ADDRESS" in variables:
        return Place(coordinator=None)
    if "TPU_SKIP_MDS_QUERY" in variables:
        return None
    there = bool(glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")) and importlib.util.find_spec("libtpu")
    return Place(coordinator=None) if there else None


def in_worker() -> bool:
    """Whether a supervisor runs above this process."""
    return _WORKER in os.environ


def await_verdict() -> None:
    """After a failure that has most often one reason, another process's death: JAX is about to know it and to abort."""
    if in_worker():
        time.sleep(_VERDICT_S)


def leave(exit_code: int) -> NoReturn:
    """Ends a process that failed."""
    if not in_worker():
        sys.exit(exit_code)
    for number in (signal.SIGTERM, signal.SIGINT):  # it is ending; a second one must not change how
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    time.sleep(_LAST_WORDS_S)
    os._exit(exit_code)  # the interpreter's own end would wait for the job's other processes


def end_with_supervisor() -> None:
    """Has this worker end when its supervisor is gone, as by kill -9."""

    def watch() -> None:
        os.read(0, 1)  # returns then
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def tell_supervisor(hosts: list[str]) -> None:
    """Leaves the names of the processes' hosts for messages."""
    (Path(os.environ[_WORKER]) / "hosts.json").write_text(json.dumps(hosts))


def supervise(place: Place) -> None:
    """Runs this command again as a worker. Raises what the worker failed with, `ProcessLost` when another one died."""
    with tempfile.TemporaryDirectory() as scratch:
        worker = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            stdin=subprocess.PIPE,  # at its end the worker knows that its supervisor is gone
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {_WORKER: scratch},
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: worker.send_signal(number))
        words = _LastWords()
        assert worker.stderr is not None
        reader = threading.Thread(target=words.listen, args=(worker.stderr,), daemon=True)
        reader.start()
        code = worker.wait()
        reader.join(timeout=2)  # a grandchild that still holds the pipe is not waited for
        try:
            hosts = json.loads((Path(scratch) / "hosts.json").read_text())
        except FileNotFoundError:
            hosts = []

    def name(index: int) -> str:
        return f"process {index}" + (f" ({hosts[index]})" if index < len(hosts) else "")

    here = hosts.index(socket.gethostname()) if place.coordinator is None and hosts else place.index
    again = "run the same command again to go on from what is saved"
    if code == 0:
        return
    if words.error and words.error_first:
        raise _Ended(f"{name(here)}: {words.error}" if here else words.error, code)
    if words.lost:
        who = " and ".join(map(name, sorted(words.lost)))
        raise ProcessLost(f"{who} of this job was lost: its own last line may say why; {again}")
    if words.error:
        raise _Ended(words.error, code)
    if code == -signal.SIGABRT:
        raise ProcessLost(f"{name(here)}: aborted, most often because another process ended or never came; {again}")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    why = " (most often: too little memory)" if code == -signal.SIGKILL else ""
    raise ProcessLost(f"{name(here)} {how}{why}; {again}")


class _Ended(O1pError):
    """What the worker said last."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code if exit_code > 0 else ProcessLost.exit_code


class _LastWords:
    """Passes a worker's stderr on, but for its last error and for what C++ says about lost processes."""

    def __init__(self) -> None:
        self.error = ""
        self.error_first = False
        """It came before anything about lost processes."""
        self.lost: set[int] = set()

    def listen(self, lines: Iterable[str]) -> None:
        aborting = listing = False
        for line in lines:
            if re.match(r"[EF]\d{4} .*(coordination_service|client\.h)", line):
                aborting = True
                listing = line.rstrip().endswith("(stopped sending heartbeats):")
                if "Failed to send RPC to coordination service" in line:
                    self.lost.add(0)
            elif listing and line.strip().isdecimal():
                self.lost.add(int(line))
            elif line.startswith("error: "):
                self.error, self.error_first = line.removeprefix("error: ").strip(), not aborting
            elif not aborting:
                print(line, end="", file=sys.stderr, flush=True)
