"""The figures of a training run: one JSON object a step in metrics.jsonl, and the same figures for TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from o1p_jax.devices import processes
from o1p_jax.runtime import files, progress


def _summary_writer(folder: Path, purge_step: int) -> Any:
    """tensorboardX's writer, imported without PyTorch: where there is one, that takes half of a run's start."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # "not installed", which tensorboardX can do with
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)


class MetricsLog:
    """A log that holds each step once, however often the run was interrupted.

    Lines of an earlier run past the step that this run goes on from are removed first.
    """

    def __init__(self, run: Path, done: int, constants: Mapping[str, float]):
        """`done` steps stand already; `constants` are repeated in every line. Only the job's first process writes."""
        self.path, self.constants = run / "metrics.jsonl", constants
        self.last = time.monotonic()
        if not processes.leader():
            return
        kept = self._kept(done)
        files.write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("a")
        self.board = _summary_writer(run / "tensorboard", done + 1)

    def write(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Waits for the step's `metrics` (device scalars), writes them, and returns them as floats."""
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        now = time.monotonic()
        values |= {"seconds": now - self.last, "tokens_per_second": values["tokens"] / (now - self.last)}
        values |= self.constants
        self.last = now
        if not processes.leader():
            return values
        with files.disk_errors(self.path):
            # JSON has no NaN.
            line = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self.file.write(json.dumps({"step": step} | line) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        return values

    def close(self) -> None:
        """Closes the files."""
        if processes.leader():
            self.file.close()
            self.board.close()

    def _kept(self, done: int) -> list[dict[str, Any]]:
        """Returns the lines of the `done` steps that can be read, and says which steps have none."""
        if done == 0:
            return []
        texts = self.path.read_bytes().splitlines() if self.path.exists() else []
        by_step = {line["step"]: line for line in map(_parsed, texts) if line is not None}
        kept = [by_step[step] for step in range(1, done + 1) if step in by_step]
        if len(kept) < done:
            missing = [step for step in range(1, done + 1) if step not in by_step]
            shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            progress.say(f"{self.path}: damaged: the figures of {len(missing)} of {done} steps are lost ({shown})")
        return kept


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Returns a line's figures; None where it is damaged, or was being written when the run was killed."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None
