"""The stage that compares models: all models answer the same problems, and a report says what changed."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES, Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import PromptSet, make_prompts
from o1p_jax.data.shards import ShardedTable
from o1p_jax.devices import processes
from o1p_jax.evaluation import table
from o1p_jax.evaluation.page import read_results, write_report
from o1p_jax.evaluation.summary import Graded, Result, compare
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.determinism import fix_bits
from o1p_jax.runtime.errors import CorruptData
from o1p_jax.runtime.files import public_path, sha256_file
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.sums import damaged, read_sums, write_sums
from o1p_jax.stages import remedies, where
from o1p_jax.stages.card import training_facts
from o1p_jax.stages.grade import grade
from o1p_jax.stages.pool import evaluation_pool
from o1p_jax.stages.preflight import check_context, check_functions, check_model
from o1p_jax.stages.run_folder import dated

_POOLS = "pools"
_COLUMNS = tuple(dict.fromkeys([*PROBLEMS.names, *SAMPLES.names, *GRADES.names]))


def evaluate(cfg: RunConfig, models: Sequence[str], problem_sets: Sequence[str], out: Path) -> None:
    """Compares models (folders, hub names, run folders) on problem sets and prints the table."""
    cfg = dated(cfg, [facts.parent for facts in sorted((out / _POOLS).glob("*/pool.json"))])
    sets = zip(_labels(problem_sets, [public_path(name) for name in problem_sets]), problem_sets, strict=True)
    problems = {label: load_problems(name, cfg.problems, cfg.problems.limit_test) for label, name in sets}
    folders = [str(Path(m) / "model") if (Path(m) / "model" / "config.json").is_file() else m for m in models]
    labels = _labels(models, [Path(m).name for m in models])
    if cfg.compute.deterministic:
        fix_bits()
    where.check_servers(cfg, len(models))
    sources = {label: find_model(folder, cfg.revision) for label, folder in zip(labels, folders, strict=True)}
    check_functions(cfg)
    for source in sources.values():
        check_apart("out", out, source.folder, "a model")
    remove_leftovers(hidden_below(out))
    prompts = {}
    for label, source in sources.items():
        check_model(cfg, source, cfg.evaluation_sampler, training=False)
        for name, of_set in problems.items():
            made = make_prompts(source.folder, of_set, cfg.problems)
            check_context(source, made, cfg.evaluation)
            prompts[label, name] = made
    results = compare_models(cfg, sources, prompts, out, title=" and ".join(labels))
    table.show(results)
    print(f"report {out / 'report.html'}")


def compare_models(
    cfg: RunConfig,
    models: Mapping[str, SourceModel],
    prompts: Mapping[tuple[str, str], PromptSet],
    out: Path,
    title: str,
) -> list[Result]:
    """Samples and grades the models on problem sets, and writes the report to `out`.

    `models` are given by the name that the report shows; the first model is the base of the others. `prompts` are each
    model's on each problem set, by the names of both. Of the processes of a job, all sample, and the leader does the
    rest; the others are given no results. A report that is there already, of the same samples and figures, is read and
    not made again.
    """
    graded = graded_pools(cfg, models, prompts, out)
    if not processes.leader():
        return []
    base = next(iter(models.values()))
    facts = {
        "base model": public_path(base.name),
        "sampler": cfg.evaluation_sampler,
        "temperature": f"{cfg.evaluation.temperature:g}",
        "top_p": f"{cfg.evaluation.top_p:g}",
        "samples a problem": str(cfg.evaluation.samples_per_problem),
        "longest solution": f"{cfg.evaluation.max_tokens} tokens",
        "AES": "as the paper printed it" if cfg.evaluation.aes_as_printed else "by the paper's formula",
        "seed": str(cfg.seed),
    }
    for name, source in models.items():
        facts |= {f"{name}, {fact}": text for fact, text in training_facts(source.folder).items()}
    shown, resamples = cfg.evaluation.rollouts_shown, cfg.evaluation.bootstrap
    made_by = [[*names, grades.metadata] for names, (_, grades) in graded.items()]
    key = fingerprint([made_by, facts, title, shown, resamples])
    if is_whole(out) and (results := read_results(out, key)) is not None:
        return results
    with memory_errors("evaluate", remedies.of_host("--problems.limit_test")):
        runs = [Graded(*names, rows_of(*of_pool)) for names, of_pool in graded.items()]
        results = compare(runs, resamples=resamples, seed=cfg.seed, as_printed=cfg.evaluation.aes_as_printed)
        write_report(out, runs, results, title=title, facts=facts, key=key, shown=shown, seed=cfg.seed)
        write_sums(out, {name: sha256_file(out / name) for name in ("report.html", "report.json", "table.md")})
    return results


def graded_pools(
    cfg: RunConfig,
    models: Mapping[str, SourceModel],
    prompts: Mapping[tuple[str, str], PromptSet],
    out: Path,
) -> dict[tuple[str, str], tuple[Pool, ShardedTable]]:
    """Samples and grades the models on problem sets; returns the pools and their grades by the names of both.

    The arguments are those of `compare_models`. What lies in `out` already is not made again.
    """
    base = next(iter(models.values()))
    sets = dict.fromkeys(problem_set for _, problem_set in prompts)
    pools = {
        (name, of_set): evaluation_pool(
            cfg, source, prompts[name, of_set], f"{_slug(name)}-{_slug(of_set)}", out / _POOLS
        )
        for of_set in sets
        for name, source in models.items()
    }
    for name, source in models.items():
        sampling = where.for_evaluation(cfg, base=source.digest == base.digest)
        others = [other.folder for other in models.values() if other.digest != source.digest]
        where.sample(cfg, sampling, source, [pools[name, of_set] for of_set in sets], title=name, others=others)
    return {names: (pool, grade(pool, cfg.grading)) for names, pool in pools.items()}


def rows_of(pool: Pool, grades: ShardedTable) -> pa.Table:
    """Returns a pool's solutions with their problems and grades."""
    return pool.read(_COLUMNS, grades)


def is_whole(out: Path) -> bool:
    """Returns whether the report in `out` is as it was written; a report that is not is made again."""
    with suppress(CorruptData):
        return bool(read_sums(out)) and not damaged(out)
    return False


def _labels(names: Sequence[str], short: Sequence[str]) -> list[str]:
    """Returns the `short` forms of the names; the whole name where another one has the same short form."""
    return [part if short.count(part) == 1 else name for name, part in zip(names, short, strict=True)]


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"
