"""The stage that trains, and leaves the model as a Hugging Face folder.

`python -m o1p_jax.stages.train JOB.json` runs the stage in a process of its own, which is needed where vLLM samples.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from o1p_jax.config.text import flatten, from_dict, plain
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import make_mesh, set_up_devices
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.children import child_main
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.place import JobPlace
from o1p_jax.runtime.traces import traces_in
from o1p_jax.sampling import in_memory
from o1p_jax.stages import identity, remedies
from o1p_jax.stages.export import export, is_exported
from o1p_jax.stages.pool import pool_path
from o1p_jax.stages.reference import reference_model
from o1p_jax.stages.run_folder import owned
from o1p_jax.stages.weigh import read_report, read_weights
from o1p_jax.training.loop import finished, train
from o1p_jax.training.memory import tokens_per_device
from o1p_jax.training.samples import TrainingSet


def is_done(cfg: RunConfig, source: SourceModel) -> bool:
    """Returns whether an earlier start made and exported the model that `cfg` asks for; reads no samples or weights."""
    run = Path(cfg.run)
    made_by = identity.of_training(cfg, source, Pool(pool_path(cfg)).identity)

    def check() -> bool:
        checkpoint = finished(run, made_by)
        return checkpoint is not None and is_exported(checkpoint, run / "model", cfg.export.dtype)

    return processes.once(check)


def train_and_export(cfg: RunConfig, source: SourceModel) -> None:
    """Trains `source` on the weighed samples of the run's pool, and exports the last checkpoint to model/.

    The weights stay in memory, for the embedded sampler. Where another job does so already, the function waits for it,
    and goes on from what it leaves.
    """
    set_up_devices(cfg.mesh)
    in_memory.let_go()
    with owned(Path(cfg.run)) as still_own:
        if not is_done(cfg, source):
            _train_and_export(cfg, source, still_own)


def _train_and_export(cfg: RunConfig, source: SourceModel, still_own: Callable[[], None]) -> None:
    run, mesh, pool = Path(cfg.run), make_mesh(cfg.mesh), Pool(pool_path(cfg))
    weights = read_weights(run / "weights")
    if weights.metadata != plain({**identity.of_weights(cfg, pool.identity), "shards": 1}):
        raise BadInput(f"run={run}: another job weighs by other settings there; name another run, or run one at a time")
    report = read_report(run / "weights")
    tokens = tokens_per_device(cfg.batch.tokens_per_device, source.decoder, cfg.compute, mesh)
    with memory_errors("train", remedies.of_training(cfg, tokens, mesh.shape["context"])):
        checkpoint = train(
            cfg.training,
            TrainingSet.of_pool(pool, weights, cfg.method.UNIT),
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
            reference_folder=pool.references,
            reference=reference_model(cfg, source),
            still_own=still_own,
        )
    with memory_errors("export", remedies.of_export(cfg.mesh)):
        params = export(checkpoint, run / "model", mesh, source, cfg.export.dtype)
        # Of several processes each samples by itself, and no process has all of the weights.
        if params is not None and processes.count() == 1:
            in_memory.keep(params, source.decoder, run / "model", cfg.compute.dtype)


def _in_a_process(job: dict[str, Any]) -> None:
    cfg = from_dict(RunConfig, job["config"])
    with traces_in(Path(cfg.run)):
        processes.start(JobPlace(**job["place"]) if job["place"] else None)
        train_and_export(cfg, SourceModel.from_json(job["source"]))


if __name__ == "__main__":
    child_main(_in_a_process)
