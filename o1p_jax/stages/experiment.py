"""An experiment compares methods: each is trained from one pool of samples, by as many steps as the others.

Of the variants of a method, which differ in a knob, the validation problems choose one; the test problems are sampled
by the chosen ones alone, and a file says when that was, and how often. Everything lies in one folder:

seed-S/pool/        the samples that all runs of a seed are trained from
seed-S/VARIANT/     a run's folder; VARIANT.trained beside it says that its model is there, and by which settings
seed-S/validation/  what the models of all variants answered; seed-S/test/ those of the chosen ones
chosen.json         what was chosen, and by which figures
test_looked_at.json each selection that the test problems were sampled for, and the time of it
runs.parquet        the figures of every run; table.md and report.html, what is made of them

Any number of processes, started by the same command, share the work out by files (`runtime.claims`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from o1p_jax.config.stages import fields_of
from o1p_jax.config.text import plain
from o1p_jax.config.tree import LAST, RunConfig
from o1p_jax.data.prompts import PromptSet, make_prompts
from o1p_jax.devices import processes
from o1p_jax.evaluation import experiment_page
from o1p_jax.evaluation.page import to_json
from o1p_jax.evaluation.summary import Graded, Result
from o1p_jax.evaluation.table import fallen
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.claims import shards_to_make
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.fields import SAMPLES
from o1p_jax.runtime.files import atomic_path, public_path, read_json, write_json
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers
from o1p_jax.runtime.progress import say
from o1p_jax.stages import identity
from o1p_jax.stages.evaluate import compared, graded_pools, runs_of
from o1p_jax.stages.pool import pool_revision
from o1p_jax.stages.preflight import check_context, load_tests, preflight
from o1p_jax.stages.rounds import prune
from o1p_jax.stages.run_folder import dated
from o1p_jax.stages.variants import Variant

BASE = "base"
VALIDATION, TEST = "validation", "test"
_LOOKED = "test_looked_at.json"


@dataclass(frozen=True)
class Plan:
    """What an experiment consists of."""

    out: Path
    validation: str
    """The problem set that chooses among the variants of a family."""
    variants: Sequence[Variant]
    configs: Mapping[tuple[int, str], RunConfig]
    """Each run's whole configuration, by seed and label: they differ in seed, folders, and what a variant changes."""

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return list(dict.fromkeys(seed for seed, _ in self.configs))

    def first(self, seed: int) -> RunConfig:
        """Returns the configuration of the seed's first trained variant, whose prompts are those of the base."""
        return self.configs[seed, next(v.label for v in self.variants if v.trained)]


def run_experiment(
    out: Path, validation: str, variants: Sequence[Variant], configs: Mapping[tuple[int, str], RunConfig]
) -> None:
    """Trains and evaluates all variants, chooses by validation, and writes table and page. What is there, stays."""
    processes.start(None)
    remove_leftovers(hidden_below(out))
    plan = Plan(out, validation, variants, _on_one_date(out, configs))
    _train(plan)
    of_validation = _results(plan, VALIDATION, variants)
    chosen = _choose(plan, of_validation)
    _note_look(out, chosen)
    _report(plan, chosen, of_validation, _results(plan, TEST, chosen))


class _Runs:
    """The runs that are to be trained, as a folder of shards for `claims`: a shard is a file that a run leaves."""

    def __init__(self, plan: Plan):
        self.path = plan.out
        self.names = [(seed, v.label) for seed in plan.seeds for v in plan.variants if v.trained]
        self._configs = [plan.configs[name] for name in self.names]
        for seed in plan.seeds:
            (plan.out / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        for index, (_, label) in enumerate(self.names):
            then = read_json(self.shard_path(index)) if self.shard_path(index).exists() else {}
            for name, now in self.settings(index).items() if then else ():
                if then.get(name) != now:
                    raise BadInput(
                        f"--out={plan.out}: {label} was trained there with {name}={then.get(name)}, not {now}; name "
                        "another folder"
                    )

    def settings(self, index: int) -> dict[str, Any]:
        """Returns what the run's model depends on, as JSON values."""
        cfg = self._configs[index]
        rounds = {
            "rounds": cfg.rounds,
            "reference": None if cfg.reference == LAST else cfg.reference,
            "fresh_problems": cfg.fresh_problems or None,
        }
        return plain({**identity.of_training(cfg, _base(cfg), fields_of(cfg, SAMPLES)), **rounds})

    def missing_shards(self) -> list[int]:
        """Returns the numbers of the runs that are not trained yet."""
        return [i for i in range(len(self.names)) if not self.shard_path(i).exists()]

    def shard_path(self, index: int) -> Path:
        """Returns the path of the file beside a run that says that it is trained, and by which settings."""
        run = Path(self._configs[index].run)
        return run.with_name(f"{run.name}.trained")


def _base(cfg: RunConfig) -> SourceModel:
    return find_model(cfg.model, pool_revision(cfg))


def _train(plan: Plan) -> None:
    """Samples each seed's pool, and trains every run on it."""
    runs = _Runs(plan)
    left = len(runs.missing_shards())
    for index in shards_to_make(runs, lambda _: None):
        seed, label = runs.names[index]
        say(f"experiment: {label}, seed {seed} ({left} of {len(runs.names)} runs to go)")
        cfg = plan.configs[seed, label]
        inputs = preflight(cfg, ("train", "test"))
        run = prune(cfg, inputs)
        write_json(runs.shard_path(index), runs.settings(index) | {"trained": find_model(str(run / "model")).digest})
        left -= 1


def _results(plan: Plan, part: str, variants: Iterable[Variant]) -> dict[int | None, list[Result]]:
    """Returns the figures of base and variants on the problems of `part`: of each seed, and (None) of all together.

    Those of all together come from all seeds' samples of a problem, so that their intervals are over problems.
    """
    rows: dict[tuple[str, str], list[pa.Table]] = {}
    of_seed: dict[int | None, list[Result]] = {}
    for seed in plan.seeds:
        models, prompts = _models(plan, part, seed, variants)
        cfg = plan.first(seed)
        runs = runs_of(graded_pools(cfg, models, prompts, plan.out / f"seed-{seed}" / part), models)
        of_seed[seed] = compared(cfg, runs)
        for run in runs:
            rows.setdefault((run.model, run.problem_set), []).append(run.rows)
    of_seed[None] = compared(cfg, [Graded(*names, _together(tables)) for names, tables in rows.items()])
    return of_seed


def _models(
    plan: Plan, part: str, seed: int, variants: Iterable[Variant]
) -> tuple[dict[str, SourceModel], dict[tuple[str, str], PromptSet]]:
    """Returns the models of a seed by label, the base first, and each one's prompts for the problems of `part`."""
    models, prompts = {}, {}
    first = plan.first(seed)
    problems = load_tests(first, [plan.validation] if part == VALIDATION else first.problems.test)
    for label, cfg, trained in [
        (BASE, first, False),
        *((v.label, plan.configs[seed, v.label], v.trained) for v in variants),
    ]:
        source = find_model(str(Path(cfg.run) / "model")) if trained else _base(cfg)
        models[label] = source
        for name, of_set in problems.items():
            prompts[label, name] = make_prompts(source.folder, of_set, cfg.problems)
            check_context(source, prompts[label, name], cfg.evaluation)
    return models, prompts


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns the solutions of several seeds as one table, numbered through for each problem."""
    renumbered, first = [], 0
    for table in tables:
        numbers = pc.add(table["sample_idx"], pa.scalar(first, pa.int32()))
        renumbered.append(table.set_column(table.column_names.index("sample_idx"), "sample_idx", numbers))
        first += int(pc.max(table["sample_idx"]).as_py()) + 1
    return pa.concat_tables(renumbered)


def _choose(plan: Plan, of_validation: Mapping[int | None, list[Result]]) -> list[Variant]:
    """Returns a variant of each family: of those whose accuracy fell in the fewest places, that of the highest AES.

    The figures are those of the validation problems, over all seeds; they are written down with what was chosen.
    """
    figures = {result.model: result for result in of_validation[None]}

    def merit(variant: Variant) -> tuple[int, float]:
        change = figures[variant.label].overall.change
        score = -np.inf if change is None else np.nan_to_num(change.aes.value, nan=-np.inf)
        return -len(fallen(figures[variant.label])), float(score)

    families: dict[str, list[Variant]] = {}
    for variant in plan.variants:
        families.setdefault(variant.family, []).append(variant)
    chosen = [max(members, key=merit) for members in families.values()]
    shown = {
        v.label: {
            "chosen": v in chosen,
            "accuracy_fell": list(fallen(figures[v.label])),
            "AES": to_json(merit(v)[1]),
        }
        for v in plan.variants
    }
    write_json(plan.out / "chosen.json", {"problems": public_path(plan.validation), "variants": shown})
    return chosen


def _note_look(out: Path, chosen: Sequence[Variant]) -> None:
    """Writes down that the test problems are sampled now for these variants, unless that stands there already."""
    looks, labels = looked_at(out), [v.label for v in chosen]
    if all(look["variants"] != labels for look in looks):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(out / _LOOKED, [*looks, {"at": now, "variants": labels}])


def looked_at(out: Path) -> list[dict]:
    """Returns the selections for which the experiment's test problems were sampled, with the time of each."""
    return read_json(out / _LOOKED) if (out / _LOOKED).exists() else []


def _report(
    plan: Plan,
    chosen: Sequence[Variant],
    of_validation: Mapping[int | None, list[Result]],
    of_test: Mapping[int | None, list[Result]],
) -> None:
    rows = [
        experiment_page.figures(result, part, seed)
        for part, of_part in ((VALIDATION, of_validation), (TEST, of_test))
        for seed, results in of_part.items()
        for result in results
    ]
    with atomic_path(plan.out / "runs.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist([row for of_result in rows for row in of_result]), temporary)
    sweeps: dict[str, dict[str, Result]] = {}
    figures = {result.model: result for result in of_validation[None]}
    for variant in plan.variants:
        if variant.value:
            sweeps.setdefault(variant.family, {})[variant.value] = figures[variant.label]
    experiment_page.write(plan.out, of_test, sweeps, _examples(plan, of_test[None], chosen), notes=_notes(plan))
    for name in ("report.html", "table.md", "runs.parquet"):
        print(f"{name.partition('.')[0]:9}{plan.out / name}")


def _examples(plan: Plan, results: Sequence[Result], chosen: Sequence[Variant]) -> list[Graded]:
    """Returns the first seed's solutions of the base, and of the trained variant with the first set's highest AES."""
    first = results[0].problem_set
    scores = {r.model: r.overall.change.aes.value for r in results if r.overall.change and r.problem_set == first}
    best = max((v for v in chosen if v.trained), key=lambda v: np.nan_to_num(scores[v.label], nan=-np.inf))
    seed = plan.seeds[0]
    models, prompts = _models(plan, TEST, seed, [best])
    graded = graded_pools(plan.configs[seed, best.label], models, prompts, plan.out / f"seed-{seed}" / TEST)
    return runs_of(graded, models)


def _other_budget(first: RunConfig, cfg: RunConfig) -> str:
    """Returns, in words, the samples and steps of a run where they are not those of one round of `first`."""
    if cfg.rounds == 1:
        return "" if cfg.optim.steps == first.optim.steps else f"{cfg.optim.steps} steps"
    part, new = "each from samples of its own part of the problems", "the later ones from samples of their own"
    what = part if cfg.splits_problems else new
    return f"up to {cfg.rounds} rounds of {cfg.optim.steps} steps, {what}"


def _notes(plan: Plan) -> list[str]:
    cfg = plan.first(plan.seeds[0])
    looks = looked_at(plan.out)
    seeds = f"{len(plan.seeds)} seeds ({', '.join(map(str, plan.seeds))})" if len(plan.seeds) > 1 else "one seed"
    often = "once" if len(looks) == 1 else f"for {len(looks)} selections"
    others = {v.label: _other_budget(cfg, plan.configs[plan.seeds[0], v.label]) for v in plan.variants if v.trained}
    but = "; ".join(f"{label}: {budget}" for label, budget in others.items() if budget)
    return [
        f"Every variant was trained from the same {cfg.sampling.samples_per_problem} samples a problem of "
        f"{public_path(cfg.problems.train)}, by {cfg.optim.steps} steps, with {seeds}{f' (but {but})' if but else ''}.",
        f"Variants of one method were chosen among by {public_path(plan.validation)}: of those whose accuracy fell "
        "beyond its interval in the fewest places, levels and overall, the one with the highest AES (chosen.json).",
        f"The test problems were sampled {often}, first on {looks[0]['at'][:10]} ({_LOOKED}).",
    ]


def _on_one_date(out: Path, configs: Mapping[tuple[int, str], RunConfig]) -> dict[tuple[int, str], RunConfig]:
    """Returns the configurations with one date for all chat templates: that of the first pool, or today's."""
    day = dated(next(iter(configs.values())), sorted(out.glob("seed-*/pool"))).problems.date
    return {name: replace(cfg, problems=replace(cfg.problems, date=day)) for name, cfg in configs.items()}
