"""The stage that compares models."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.devices import processes
from o1p_jax.evaluation import table
from o1p_jax.evaluation.page import write_report
from o1p_jax.evaluation.summary import Graded, Result, compare
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.runtime.signals import preemptible
from o1p_jax.stages.grade import grade_rollouts
from o1p_jax.stages.preflight import check_inputs, mesh_sizes
from o1p_jax.stages.presample import RolloutJob
from o1p_jax.stages.where import outside_vllm, sample


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
        outside_vllm(cfg, {"do": "mesh", "mesh": cfg.mesh, "sizes": sizes})
    results = compare_models(
        cfg, dict(zip(labels, folders, strict=True)), problem_sets, out, title=" and ".join(labels)
    )
    table.show(results)
    print(f"report {out / 'report.html'}")


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
            sample(RolloutJob(config=here, part="test", model=model, out=str(folder / "sampled")))
            with preemptible():
                grade_rollouts(folder / "sampled", folder / "graded", cfg.grading)
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


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"
