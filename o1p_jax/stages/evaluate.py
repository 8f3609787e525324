"""The stage that compares models: all models answer the same problems, and a report says what changed."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES, Pool
from o1p_jax.data.prompts import Prompter, PromptSet, make_prompts
from o1p_jax.data.shards import ShardedTable
from o1p_jax.devices import processes
from o1p_jax.evaluation import table
from o1p_jax.evaluation.effort import with_passes
from o1p_jax.evaluation.page import read_results, write_report
from o1p_jax.evaluation.summary import Graded, Result, compare
from o1p_jax.grading.thoughts import THOUGHT, thought_end
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.determinism import fix_bits
from o1p_jax.runtime.errors import CorruptData
from o1p_jax.runtime.files import public_path, sha256_file
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers
from o1p_jax.runtime.memory import memory_errors
from o1p_jax.runtime.sums import damaged, read_sums, write_sums
from o1p_jax.sampling import in_memory
from o1p_jax.stages import remedies, where
from o1p_jax.stages.card import training_facts
from o1p_jax.stages.grade import grade
from o1p_jax.stages.overlap import notes_on_models
from o1p_jax.stages.pool import evaluation_pool
from o1p_jax.stages.preflight import check_context, check_functions, check_model, labels, load_tests
from o1p_jax.stages.run_folder import dated

_POOLS = "pools"
_FORMAT = 3
"""The form of the report: one of another form is made again."""
_COLUMNS = tuple(dict.fromkeys([*PROBLEMS.names, *SAMPLES.names, *GRADES.names]))


def evaluate(cfg: RunConfig, models: Sequence[str], problem_sets: Sequence[str], out: Path) -> None:
    """Compares models (folders, hub names, run folders) on problem sets and prints the table."""
    cfg = dated(cfg, [facts.parent for facts in sorted((out / _POOLS).glob("*/pool.json"))])
    problems = load_tests(cfg, problem_sets)
    folders = [str(Path(m) / "model") if (Path(m) / "model" / "config.json").is_file() else m for m in models]
    names = labels(models, [Path(m).name for m in models])
    if cfg.compute.deterministic:
        fix_bits()
    where.check_servers(cfg, len(models))
    sources = {label: find_model(folder, cfg.revision) for label, folder in zip(names, folders, strict=True)}
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
    notes = notes_on_models(cfg.problems, {name: source.folder for name, source in sources.items()}, problems)
    results = compare_models(cfg, sources, prompts, out, title=" and ".join(names), notes=notes)
    table.show(results, notes)
    print(f"report {out / 'report.html'}")


def compare_models(
    cfg: RunConfig,
    models: Mapping[str, SourceModel],
    prompts: Mapping[tuple[str, str], PromptSet],
    out: Path,
    title: str,
    notes: table.Notes,
) -> list[Result]:
    """Samples and grades the models on problem sets, and writes the report to `out`.

    `models` are given by the name that the report shows; the first model is the base of the others. `prompts` are each
    model's on each problem set, by the names of both; `notes` are said of a set under its table. Of the processes of a
    job, all sample, and the leader does the rest; the others are given no results. A report that is there already, of
    the same samples and figures, is read and not made again.
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
    budgets = cfg.evaluation.ladder
    key = fingerprint([_FORMAT, made_by, facts, title, shown, resamples, budgets, notes])
    if is_whole(out) and (results := read_results(out, key)) is not None:
        return results
    with memory_errors("evaluate", remedies.of_host("--problems.limit_test")):
        runs = runs_of(graded, models)
        results = compared(cfg, runs)
        write_report(out, runs, results, title=title, facts=facts, notes=notes, key=key, shown=shown, seed=cfg.seed)
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
    # The model whose weights this process has kept comes first: another's take their place.
    for name, source in sorted(models.items(), key=lambda model: not in_memory.is_kept(model[1].digest)):
        sampling = where.for_evaluation(cfg, base=source.digest == base.digest)
        others = [other.folder for other in models.values() if other.digest != source.digest]
        where.sample(cfg, sampling, source, [pools[name, of_set] for of_set in sets], title=name, others=others)
    return {names: (pool, grade(pool, cfg.grading)) for names, pool in pools.items()}


def runs_of(
    graded: Mapping[tuple[str, str], tuple[Pool, ShardedTable]], models: Mapping[str, SourceModel]
) -> list[Graded]:
    """Returns the solutions of `graded_pools` with their problems, grades, thoughts and passes, by model and set."""
    runs = []
    for (name, problem_set), (pool, grades) in graded.items():
        prompter = Prompter(models[name].folder)
        rows = with_thoughts(pool.read(_COLUMNS, grades), prompter)
        runs.append(Graded(name, problem_set, with_passes(rows, prompter.text_lengths)))
    return runs


def compared(cfg: RunConfig, runs: Sequence[Graded]) -> list[Result]:
    """Returns the figures of the runs, as the configuration's evaluation reckons them; see `summary.compare`."""
    how = cfg.evaluation
    return compare(runs, budgets=how.ladder, resamples=how.bootstrap, seed=cfg.seed, as_printed=how.aes_as_printed)


def is_whole(out: Path) -> bool:
    """Returns whether the report in `out` is as it was written; a report that is not is made again."""
    with suppress(CorruptData):
        return bool(read_sums(out)) and not damaged(out)
    return False


def with_thoughts(rows: pa.Table, prompter: Prompter) -> pa.Table:
    """Returns graded rollouts with `thought_tokens`: a solution's tokens up to the end of its last thought.

    The end's mark is among them. A thought that is not closed ends with the text; without a thought the value is null.
    """
    # One solution's ids at a time: as Python's numbers all of them would take gigabytes.
    columns = (rows[name] for name in ("completion", "completion_ids", "inside_thought"))
    tokens = [_thought_tokens(prompter, *row) for row in zip(*columns, strict=True)]
    return rows.append_column("thought_tokens", pa.array(tokens, pa.int64()))


def _thought_tokens(prompter: Prompter, text: pa.Scalar, id_list: pa.Scalar, inside: pa.Scalar) -> int | None:
    opened = THOUGHT if inside.as_py() else ""
    end = thought_end(opened + text.as_py())
    if end is None:
        return None
    ids = id_list.as_py()
    # The first tokens whose text reaches that far: the ids alone do not tell where in the text each of them stands.
    return bisect_left(range(len(ids)), end - len(opened), key=lambda n: len(prompter.decode(ids[:n])))


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"
