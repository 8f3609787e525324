"""The smallest whole job there is, as processes of their own: a random two-layer model, six problems, six steps."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
from commands import environment
from drive_train import tiny_model
from host import model_folder, problem_file

from o1p_jax.data.pool import PROBLEMS, SAMPLES, Pool

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--mesh=1x1", "--rounds=1", "--sampling.samples_per_problem=4", "--method.m=4", "--sampling.slots=8",
    "--sampling.max_tokens=24",
    "--sampling.problems_per_shard=2", "--evaluation.max_tokens=24", "--evaluation.samples_per_problem=1",
    "--problems.max_prompt_tokens=96", "--batch.sequences=4", "--batch.row_length=128",
    "--checkpoint.every=2", "--optim.learning_rate=1e-3",
)  # fmt: skip
RESULTS = ("digest.txt", "model/model.safetensors", "model/o1p_jax.json", "evaluation/table.md")
"""What an undisturbed run and a disturbed one must agree on, bit by bit."""
PATIENCE_S = 240


class Home:
    """A folder with the job's inputs, what was compiled for it, and a run of it that nothing disturbed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.model, self.problems, self.run = folder / "model", folder / "problems.jsonl", folder / "undisturbed"
        self.rollouts = folder / "rollouts.parquet"
        self.environment = environment(
            ROOT,
            ROOT / "tests" / "helpers",
            JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
            JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
            JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # what is compiled runs for milliseconds
            XDG_CACHE_HOME=str(folder / "cache"),
            HF_HUB_OFFLINE="1",
            OMP_NUM_THREADS="1",
            TOKENIZERS_PARALLELISM="false",
        )
        self.seconds = 0.0
        """How long the undisturbed job takes with everything compiled."""

    def write_inputs(self) -> None:
        """Writes the model and the problems. A process that has called this has JAX's threads and must not fork."""
        model_folder(self.model)
        tiny_model(self.model, vocab_size=300)
        problem_file(self.problems, 6)

    def do_undisturbed(self) -> None:
        """Does the job, unless an earlier call has; and once more, with everything compiled, in another folder."""
        for run in (self.run, self.folder / "again"):
            began = time.monotonic()
            done = Command(self, self.job(run))
            done.wait()
            done.judge((0,))
            self.seconds = time.monotonic() - began
        self.assert_same(self.folder / "again")
        pq.write_table(Pool(self.run / "pool").read([*PROBLEMS.names, *SAMPLES.names]), self.rollouts)

    def job(self, run: Path, *flags: str) -> list[str]:
        """The command line of the whole job."""
        problems = [f"--problems.train={self.problems}", f"--problems.test={self.problems}"]
        return ["train.py", f"--run={run}", f"--model={self.model}", *problems, *FLAGS, *flags]

    def assert_same(self, run: Path, undisturbed: Path | None = None) -> None:
        """The run came to the same end as the undisturbed one, and nothing lies about in it."""
        other = undisturbed or self.run
        for name in RESULTS:
            assert (run / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"
        assert losses(run) == losses(other), "metrics differ"
        leftovers = [str(path.relative_to(run)) for path in run.rglob(".*")]
        assert not leftovers, f"left over: {', '.join(leftovers)}"
        shutil.rmtree(run)


def losses(run: Path) -> list[tuple[int, float]]:
    """Returns step and loss of each line of the run's metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


class Command:
    """A command of launch/ that was started, with a process group of its own."""

    def __init__(self, home: Home, command: list[str], largest_file: int | None = None):
        """Starts a program, of launch/ if no other path is given; its files may not exceed `largest_file`."""
        self.log = home.folder / f"{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "launch" / command[0], *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=home.environment,
                start_new_session=True,
                preexec_fn=largest_file and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file,) * 2)),
            )

    def wait(self, timeout: float = PATIENCE_S) -> int | None:
        """Returns the exit code; None where the command still runs after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kills the command's whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def judge(self, codes: tuple[int, ...]) -> int:
        """Waits for the end, and judges it: one of these exit codes, a line of error where it failed, and no trace.

        What was killed by -9 says nothing.
        """
        code, text = self.wait(), self.log.read_text(errors="replace")
        if code is None:
            self.kill()
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        end = text[-1500:]
        assert code in codes, f"exit code {code}: {end}"
        assert len(errors) == (code not in (0, -signal.SIGKILL)), f"{len(errors)} lines of error: {end}"
        assert "Traceback" not in text and "internal error" not in text, end
        self.log.unlink()
        return code
