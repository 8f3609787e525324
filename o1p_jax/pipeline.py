"""The whole job, stage by stage: presample -> grade -> weigh -> train -> export -> evaluate.

Every stage skips what an earlier run of the same command has finished.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from o1p_jax import processes, table
from o1p_jax.annotate import WeightReport, grade_rollouts, weigh_rollouts
from o1p_jax.config import RunConfig, VllmConfig, from_dict, to_dict
from o1p_jax.errors import BadInput
from o1p_jax.evaluate import Graded, Result, compare
from o1p_jax.export import export, write_card
from o1p_jax.isolate import child_main, preemptible, run_child, run_children
from o1p_jax.launcher import Place
from o1p_jax.mesh import check_divides, make_mesh, simulate_devices
from o1p_jax.models.hf import load_config, resolve_model
from o1p_jax.presample import RolloutJob, presample
from o1p_jax.report import write_report
from o1p_jax.rollouts import RolloutFolder
from o1p_jax.runs import check_inputs, check_run, load_run_config, mesh_sizes, open_run
from o1p_jax.samples import TrainingSet
from o1p_jax.train import train

BEFORE, AFTER = "before", "after"


def whole_job(cfg: RunConfig, place: Place | None = None) -> None:
    """From the config's model and problems to a pruned model, and the table that shows what it is worth.

    `place` is this process's among those that do the job together; None: it is alone.
    """
    processes.start(place)
    preflight(cfg, "train", "test")
    run = open_run(cfg)
    report = _make_samples(cfg, run)
    _outside_vllm(cfg, {"do": "train", "config": to_dict(cfg), "report": asdict(report)})
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


def evaluate(cfg: RunConfig, models: Sequence[str], problem_sets: Sequence[str], out: Path) -> None:
    """Compares models (folders, names, run folders) on problem sets and prints the table."""
    folders = [str(Path(m) / "model") if (Path(m) / "model" / "config.json").is_file() else m for m in models]
    names = [Path(m).name for m in models]
    labels = [name if names.count(name) == 1 else model for name, model in zip(names, models, strict=True)]
    for model in folders:
        for problem_set in problem_sets:
            there = replace(cfg, model=model, problems=replace(cfg.problems, test=problem_set))
            check_inputs(there, resolve_model(model, cfg.revision), ["test"])
        sizes = mesh_sizes(cfg, load_config(resolve_model(model, cfg.revision)))
        _outside_vllm(cfg, {"do": "mesh", "mesh": cfg.mesh, "sizes": sizes})
    results = compare_models(
        cfg, dict(zip(labels, folders, strict=True)), problem_sets, out, title=" and ".join(labels)
    )
    table.show(results)
    print(f"report {out / 'report.html'}")


def preflight(cfg: RunConfig, *parts: str) -> None:
    """Raises BadInput, within seconds and with nothing written, for what would fail hours later."""
    check_run(cfg)
    folder = resolve_model(cfg.model, cfg.revision)
    check_inputs(cfg, folder, parts)
    _outside_vllm(cfg, {"do": "mesh", "mesh": cfg.mesh, "sizes": mesh_sizes(cfg, load_config(folder))})


def compare_models(
    cfg: RunConfig, models: Mapping[str, str], problem_sets: Sequence[str], out: Path, title: str
) -> list[Result]:
    """Samples and grades every model (name -> folder, hub name or `embedded`) on every problem set, and writes the
    report to `out`. The first model is the base of the others. Of the processes of a job, all sample, and the leader
    does the rest; the others are given no results.
    """
    runs = []
    for problem_set in problem_sets:
        for name, model in models.items():
            folder = out / "rollouts" / _slug(name) / _slug(problem_set)
            here = replace(cfg, model=model, problems=replace(cfg.problems, test=problem_set))
            _sample(RolloutJob(config=here, part="test", model=model, out=str(folder / "sampled")))
            with preemptible():
                grade_rollouts(folder / "sampled", folder / "graded")
            if processes.leader():
                runs.append(Graded(name, problem_set, RolloutFolder(folder / "graded").read()))
    if not processes.leader():
        return []
    results = compare(runs, resamples=cfg.evaluation.bootstrap, seed=cfg.seed, as_printed=cfg.evaluation.aes_as_printed)
    facts = {
        "base model": cfg.model,
        "sampler": cfg.sampling.sampler,
        "temperature": f"{cfg.evaluation.temperature:g}",
        "top_p": f"{cfg.evaluation.top_p:g}",
        "samples a problem": str(cfg.evaluation.samples_per_problem),
        "longest solution": f"{cfg.evaluation.max_tokens} tokens",
        "AES": "as the paper printed it" if cfg.evaluation.aes_as_printed else "by the paper's formula",
        "seed": str(cfg.seed),
    }
    write_report(out, runs, results, title=title, facts=facts, shown=cfg.evaluation.rollouts_shown, seed=cfg.seed)
    return results


def _make_samples(cfg: RunConfig, run: Path) -> WeightReport:
    _sample(RolloutJob(config=cfg, part="train", model=cfg.model, out=str(run / "rollouts")))
    with preemptible():
        grade_rollouts(run / "rollouts", run / "graded")
        report = processes.once(lambda: asdict(weigh_rollouts(run / "graded", run / "weighed", cfg.method, cfg.seed)))
    return WeightReport(**report)


def _train_and_export(cfg: RunConfig, report: WeightReport) -> None:
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


def _sample(job: RolloutJob) -> None:
    if job.config.sampling.sampler == "vllm":
        folder = resolve_model(job.model, job.config.revision)  # the child's environment may lack JAX
        vllm = job.config.sampling.vllm
        run_children(
            "o1p_jax.presample",
            to_dict(replace(job, folder=str(folder))),
            [_gpus(i, vllm) for i in range(vllm.replicas)],
            vllm.python,
        )
    else:
        presample(job)


def _gpus(replica: int, vllm: VllmConfig) -> dict[str, str]:
    """The variable that gives an engine GPUs of its own; where there is one engine, it sees what this process does."""
    if vllm.replicas == 1:
        return {}
    here = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    seen = here.split(",") if here else [str(i) for i in range(vllm.replicas * vllm.tensor_parallel)]
    if len(seen) < vllm.replicas * vllm.tensor_parallel:
        raise BadInput(
            f"sampling.vllm.replicas={vllm.replicas}: x tensor_parallel={vllm.tensor_parallel} is more GPUs than the "
            f"{len(seen)} of CUDA_VISIBLE_DEVICES={here}"
        )
    first = replica * vllm.tensor_parallel
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[first : first + vllm.tensor_parallel])}


def _outside_vllm(cfg: RunConfig, job: dict[str, Any]) -> None:
    """Does `job` here; in a process of its own where vLLM samples, so that the accelerator is free for vLLM."""
    if cfg.sampling.sampler == "vllm":
        place = processes.place_beside()
        run_child("o1p_jax.pipeline", job | {"place": place and asdict(place)})
    else:
        _do(job)


def _do(job: dict[str, Any]) -> None:
    simulate_devices(job["mesh"] if job["do"] == "mesh" else job["config"]["mesh"])
    if job["do"] == "mesh":
        make_mesh(job["mesh"])
        check_divides(job["mesh"], job["sizes"], len(jax.devices()))
    else:
        _train_and_export(from_dict(RunConfig, job["config"]), WeightReport(**job["report"]))


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"


def _do_with_others(job: dict[str, Any]) -> None:
    processes.start(Place(**job["place"]) if job["place"] else None)
    _do(job)


if __name__ == "__main__":
    child_main(_do_with_others)
