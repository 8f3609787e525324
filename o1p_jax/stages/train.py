"""The stage that trains, and leaves the model as a Hugging Face folder."""

from pathlib import Path

from o1p_jax.config.tree import RunConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.runtime.signals import preemptible
from o1p_jax.stages.export import export
from o1p_jax.stages.weigh import WeightReport
from o1p_jax.training.loop import train
from o1p_jax.training.samples import TrainingSet


def train_and_export(cfg: RunConfig, report: WeightReport) -> None:
    run, mesh = Path(cfg.run), make_mesh(cfg.mesh)
    checkpoint = train(
        cfg,
        TrainingSet.weighed(run / "weighed"),
        resolve_model(cfg.model, cfg.revision),
        mesh,
        run,
        constants={"wrong_positive": report.wrong_positive_share},
    )
    data = {
        "problems": report.problems,
        "solutions sampled": report.samples,
        "solutions trained on": report.kept,
        "of them wrong with a positive weight": f"{report.wrong_positive_share:.1%}",
    }
    with preemptible():
        export(checkpoint, run / "model", mesh, data=data)
