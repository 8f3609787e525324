"""The part of a job that makes the pruned model: presample -> grade -> weigh -> train -> export."""

from dataclasses import asdict
from pathlib import Path

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.shards import ShardedTable
from o1p_jax.devices import processes
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.stages import identity, remedies, where
from o1p_jax.stages.grade import grade
from o1p_jax.stages.pool import imported_pool, training_pool
from o1p_jax.stages.preflight import Inputs
from o1p_jax.stages.reference import reference_means
from o1p_jax.stages.run_folder import open_run, owned
from o1p_jax.stages.train import is_done
from o1p_jax.stages.weigh import weigh


def pruned(cfg: RunConfig, inputs: Inputs) -> Path:
    """Trains one round, and exports its model to model/ in the run's folder, which is returned."""
    run = open_run(cfg, inputs.source.commit)
    weighed_samples(cfg, inputs, run)
    if not is_done(cfg, inputs.source):
        where.train(cfg, inputs.source)
    return run


def weighed_samples(cfg: RunConfig, inputs: Inputs, run: Path) -> Pool:
    """Samples, grades and weighs solutions of the training problems; returns their pool."""
    pool, grades = graded_pool(cfg, inputs)
    made_by = identity.of_weights(cfg, pool.identity)
    with owned(run), memory_errors("weigh", remedies.of_host("--problems.limit_train")):
        processes.once(
            lambda: asdict(weigh(pool, grades, cfg.training, made_by, run / "weights", reference_means(cfg)))
        )
    return pool


def graded_pool(cfg: RunConfig, inputs: Inputs) -> tuple[Pool, ShardedTable]:
    """Samples and grades solutions of the training problems; returns their pool and the grades."""
    pool = _pool(cfg, inputs)
    where.sample(cfg, cfg.sampling, inputs.source, [pool], title="train")
    return pool, grade(pool, cfg.grading)


def _pool(cfg: RunConfig, inputs: Inputs) -> Pool:
    if inputs.train is not None:
        return training_pool(cfg, inputs.source, inputs.train)
    pool = imported_pool(cfg, inputs.source)
    assert pool is not None
    return pool
