"""The whole job, stage by stage: presample -> grade -> weigh -> train -> export -> evaluate.

Every stage skips what an earlier run of the same command has finished.
"""

from dataclasses import asdict
from pathlib import Path

from o1p_jax.config.text import to_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import make_mesh, simulate_devices
from o1p_jax.evaluation import table
from o1p_jax.evaluation.summary import Result
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.runtime.place import JobPlace
from o1p_jax.runtime.signals import preemptible
from o1p_jax.stages.card import write_card
from o1p_jax.stages.evaluate import compare_models
from o1p_jax.stages.export import export
from o1p_jax.stages.grade import grade_rollouts
from o1p_jax.stages.preflight import check_inputs, mesh_sizes
from o1p_jax.stages.presample import RolloutJob
from o1p_jax.stages.run_folder import check_run, load_run_config, open_run
from o1p_jax.stages.weigh import WeightReport, weigh_rollouts
from o1p_jax.stages.where import outside_vllm, sample

BEFORE, AFTER = "before", "after"


def whole_job(cfg: RunConfig, place: JobPlace | None = None) -> None:
    """From the config's model and problems to a pruned model, and the table that shows what it is worth.

    `place` is this process's among those that do the job together; None: it is alone.
    """
    processes.start(place)
    preflight(cfg, "train", "test")
    run = open_run(cfg)
    report = _make_samples(cfg, run)
    outside_vllm(cfg, {"do": "train", "config": to_dict(cfg), "report": asdict(report)})
    results = compare_models(
        cfg,
        {BEFORE: cfg.model, AFTER: str(run / "model")},
        [cfg.problems.test],
        run / "evaluation",
        title=f"{cfg.model}, before and after",
    )
    processes.once(lambda: _show(run, results))


def _show(run: Path, results: list[Result]) -> None:
    write_card(run / "model", table.markdown(results))
    table.show(results)
    for name, path in (
        ("model", "model"),
        ("report", "evaluation/report.html"),
        ("table", "evaluation/table.md"),
        ("metrics", "metrics.jsonl"),
        ("rollouts", "weighed"),
    ):
        print(f"{name:9}{run / path}")


def samples_only(cfg: RunConfig) -> None:
    """The part before training: sampled, graded and weighed solutions of the training problems."""
    preflight(cfg, "train")
    run = open_run(cfg)
    _make_samples(cfg, run)
    print(f"rollouts {run / 'weighed'}")


def export_run(run: Path, out: Path, step: int | None) -> None:
    """Writes the model of the run's checkpoint `step`, the newest whole one if None, to the folder `out`."""
    cfg = load_run_config(run)
    simulate_devices(cfg.mesh)
    export(run if step is None else run / "checkpoints" / f"{step:08d}", out, make_mesh(cfg.mesh))
    print(f"model {out}")


def preflight(cfg: RunConfig, *parts: str) -> None:
    """Raises BadInput, within seconds and with nothing written, for what would fail hours later."""
    check_run(cfg)
    folder = resolve_model(cfg.model, cfg.revision)
    check_inputs(cfg, folder, parts)
    outside_vllm(cfg, {"do": "mesh", "mesh": cfg.mesh, "sizes": mesh_sizes(cfg, load_config(folder))})


def _make_samples(cfg: RunConfig, run: Path) -> WeightReport:
    sample(RolloutJob(config=cfg, part="train", model=cfg.model, out=str(run / "rollouts")))
    with preemptible():
        grade_rollouts(run / "rollouts", run / "graded", cfg.grading)
        report = processes.once(lambda: asdict(weigh_rollouts(run / "graded", run / "weighed", cfg.method, cfg.seed)))
    return WeightReport(**report)
