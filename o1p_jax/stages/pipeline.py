"""The pipeline is the whole job, stage by stage: presample -> grade -> weigh -> train -> export -> evaluate.

Every stage skips what an earlier start of the same command has finished.
"""

from pathlib import Path

from o1p_jax.config.saved import CONFIG, load_saved
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import make_mesh, set_up_devices
from o1p_jax.evaluation import table
from o1p_jax.evaluation.summary import Result
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import public_path
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.place import JobPlace
from o1p_jax.stages import remedies
from o1p_jax.stages.card import training_facts, write_card
from o1p_jax.stages.evaluate import compare_models
from o1p_jax.stages.export import export, newest_checkpoint
from o1p_jax.stages.pool import pool_path
from o1p_jax.stages.preflight import preflight
from o1p_jax.stages.prune import graded_pool, weighed_samples
from o1p_jax.stages.rounds import prune
from o1p_jax.stages.run_folder import dated, open_run

BEFORE, AFTER = "before", "after"


def whole_job(cfg: RunConfig, place: JobPlace | None = None, restart: str | None = None) -> None:
    """Makes a pruned model of the config's model and problems, and the table that shows what the model is worth.

    `place` is this process's place among those that do the job together; None: the process is alone. `restart` names
    the result whose earlier work may be set aside where the configuration has no more use for it.
    """
    processes.start(place)
    cfg = dated(cfg, [pool_path(cfg.of_round(1))], Path(cfg.run))
    inputs = preflight(cfg, ("train", "test"), restart)
    run = prune(cfg, inputs, restart)
    models = {BEFORE: inputs.source, AFTER: find_model(str(run / "model"))}
    results = compare_models(
        cfg,
        models,
        {(name, of_set): prompts for of_set, prompts in inputs.tests.items() for name in models},
        run / "evaluation",
        title=f"{public_path(cfg.model)}, before and after",
        notes=inputs.notes,
    )
    processes.once(lambda: _show(cfg, run, results, inputs.notes))


def samples_only(cfg: RunConfig, restart: str | None = None) -> None:
    """Does the part of the job before training: samples, grades and weighs solutions of the training problems.

    Of several rounds it is the first one's part, since the others' models are not there yet. Where `cfg` names a pool
    beside the run, that pool alone is made: it belongs to no run, and weights do.
    """
    alone = cfg.pool is not None
    whole = dated(cfg, [pool_path(cfg.of_round(1))], None if alone else Path(cfg.run))
    cfg = whole.of_round(1)
    inputs = preflight(cfg, ("train",), restart, pool_alone=alone, training=False)
    if alone:
        processes.once(lambda: remove_leftovers(hidden_below(pool_path(cfg))))
        pool, _ = graded_pool(cfg, inputs)
        print(f"pool    {pool.path}")
        return
    if cfg is not whole:  # a round lies in a run
        open_run(whole, inputs.source.commit)
    run = open_run(cfg, inputs.source.commit)
    pool = weighed_samples(cfg, inputs, run)
    print(f"pool    {pool.path}\nweights {run / 'weights'}")


def export_run(run: Path, out: Path, step: int | None, dtype: str | None = None) -> None:
    """Writes the model of the run's checkpoint `step` (None: of the newest whole checkpoint) to the folder `out`.

    `dtype` is the type of its weights; None: what the run's export.dtype says.
    """
    if not (run / CONFIG).is_file():
        raise BadInput(f"run={run}: no run there ({CONFIG} is missing); name a run's folder")
    cfg, commit = load_saved(run / CONFIG)
    set_up_devices(cfg.mesh)
    folder = newest_checkpoint(run, step)
    remove_leftovers(out.parent.glob(f".{out.name}.*"))
    with memory_errors("export", remedies.of_export(cfg.mesh)):
        source = find_model(cfg.model, commit or cfg.revision)
        export(folder, out, make_mesh(cfg.mesh), source, dtype or cfg.export.dtype)
    print(f"model {out}")


def _show(cfg: RunConfig, run: Path, results: list[Result], notes: table.Notes) -> None:
    write_card(run / "model", table.markdown(results, notes), as_printed=cfg.evaluation.aes_as_printed)
    table.show(results, notes)
    if fill := training_facts(run / "model").get("computed slots that held a token"):
        print(f"fill     {fill} of the token slots that training computed held a token")
    for name, path in (
        ("model", run / "model"),
        ("report", run / "evaluation" / "report.html"),
        ("table", run / "evaluation" / "table.md"),
        ("metrics", run / "metrics.jsonl"),
        ("weights", run / "weights"),
        ("rounds", run / "rounds.json"),
    ):
        if path.exists():
            print(f"{name:9}{path}")
