"""The stage that trains, and leaves the model as a Hugging Face folder.

`python -m o1p_jax.stages.train JOB.json` runs the stage in a process of its own, which is needed where vLLM samples.
"""

from pathlib import Path
from typing import Any

from o1p_jax.config.text import flatten, from_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import make_mesh, simulate_devices
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.place import JobPlace
from o1p_jax.runtime.signals import preemptible
from o1p_jax.stages import identity
from o1p_jax.stages.export import export, is_exported
from o1p_jax.stages.pool import pool_path
from o1p_jax.stages.weigh import read_report, read_weights
from o1p_jax.training.loop import finished, train
from o1p_jax.training.samples import TrainingSet


def is_done(cfg: RunConfig, source: SourceModel) -> bool:
    """Returns whether an earlier start made and exported the model that `cfg` asks for; reads no samples or weights."""
    run = Path(cfg.run)
    made_by = identity.of_training(cfg, source, Pool(pool_path(cfg)).identity)

    def check() -> bool:
        checkpoint = finished(run, made_by)
        return checkpoint is not None and is_exported(checkpoint, run / "model")

    return processes.once(check)


def train_and_export(cfg: RunConfig, source: SourceModel) -> None:
    """Trains `source` on the weighed samples of the run's pool, and exports the last checkpoint to model/."""
    simulate_devices(cfg.mesh)
    run, mesh, pool = Path(cfg.run), make_mesh(cfg.mesh), Pool(pool_path(cfg))
    report = read_report(run / "weights")
    checkpoint = train(
        cfg.training,
        TrainingSet.of_pool(pool, read_weights(run / "weights")),
        source,
        mesh,
        run,
        made_by=identity.of_training(cfg, source, pool.identity),
        notes={
            "model": source.name,
            "commit": source.commit,
            "data": report.for_card(),
            "imported": pool.facts.get("imported"),
            "config": flatten(cfg),
        },
        constants=report.for_metrics(),
    )
    with preemptible():
        export(checkpoint, run / "model", mesh, source)


def _in_a_process(job: dict[str, Any]) -> None:
    processes.start(JobPlace(**job["place"]) if job["place"] else None)
    train_and_export(from_dict(RunConfig, job["config"]), SourceModel.from_json(job["source"]))


if __name__ == "__main__":
    child_main(_in_a_process)
