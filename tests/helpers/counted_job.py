"""The whole job on the embedded model, small and in this process, with a count of what it does."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from small_job import SMALL

from o1p_jax.config.tree import RunConfig
from o1p_jax.data import shards
from o1p_jax.grading.grader import Grader
from o1p_jax.models import source
from o1p_jax.runtime import digests, files
from o1p_jax.sampling import engine
from o1p_jax.sampling.engine import JaxSampler
from o1p_jax.stages import cli, preflight, train, weigh
from o1p_jax.stages.pipeline import whole_job
from o1p_jax.training.metrics import MetricsLog

FLAGS = [*SMALL, "--batch.sequences=8", "--sampling.problems_per_shard=4"]
TRAIN, TEST, STEPS = 8 * 4, 4 * 2, 4
"""Samples of the training problems, of one model's test problems, and steps of training."""


@contextmanager
def counting() -> Iterator[Counter]:
    """Counts, inside: models looked up, their digests, files hashed, models loaded to be sampled from, samples drawn,
    graded, weighings and steps.
    """
    counts: Counter = Counter()

    def counted(owner, name: str, what: str, amount=lambda *_, **__: 1):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            counts[what] += amount(*args, **kwargs)
            return original(*args, **kwargs)

        return mock.patch.object(owner, name, call)

    with (
        counted(source, "resolve_model", "models"),
        counted(source, "kept_sha256", "digests"),
        counted(digests, "sha256_file", "hashed"),
        counted(files, "sha256_file", "hashed"),
        counted(shards, "read_summed", "hashed"),
        counted(engine, "load_params", "loaded"),
        counted(JaxSampler, "add", "sampled"),
        counted(Grader, "grade_many", "graded", lambda _, pairs: len(pairs)),
        counted(weigh, "_weigh", "weighed"),
        counted(MetricsLog, "write", "steps"),
        # The tests' process has its eight devices, and would keep the number that a job asks for.
        mock.patch.object(preflight, "set_up_devices"),
        mock.patch.object(train, "set_up_devices"),
    ):
        yield counts


def configuration(run: Path, *flags: str) -> RunConfig:
    return cli.parse_run_config([f"--run={run}", *FLAGS, *flags])


def job(run: Path, *flags: str, restart: str | None = None) -> Counter:
    """Does the whole job with these flags beside `FLAGS`; returns what was counted."""
    with counting() as counts:
        whole_job(configuration(run, *flags), restart=restart)
    return counts


def copied(run: Path, to: Path) -> Path:
    """A copy of a run that may be gone on with."""
    return shutil.copytree(run, to)


def unfinish(run: Path, step: int) -> None:
    """Takes away what a run made after its checkpoint `step`."""
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    (run / "digest.txt").unlink()
    shutil.rmtree(run / "model")
