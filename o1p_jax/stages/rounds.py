"""Several rounds: the model that one round has made samples, and is trained, in the next.

A round is a run of its own, in the folder round-N of the run, from the model of the round before. Training problems
that no round is trained on judge it: where its accuracy lies below that of the base, or of the round before, on a level
or overall beyond the change's interval, no other round follows, and the round is not kept, if it is not the first.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import FIRST, HOLD_OUT, RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import PromptSet
from o1p_jax.data.shards import ShardedTable
from o1p_jax.devices import processes
from o1p_jax.evaluation.page import to_json
from o1p_jax.evaluation.summary import Summary
from o1p_jax.evaluation.table import fallen
from o1p_jax.models.hf.hub import CONFIG
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import copy_or_link, read_json, write_json
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.sums import filled, read_sums
from o1p_jax.stages.card import PROVENANCE, write_card
from o1p_jax.stages.evaluate import compared, graded_pools, runs_of
from o1p_jax.stages.preflight import Inputs, preflight
from o1p_jax.stages.prune import pruned
from o1p_jax.stages.run_folder import ANY, open_run
from o1p_jax.stages.weigh import held_out

_BASE, _SET = "base", "held out"
_FILE = "rounds.json"


def prune(cfg: RunConfig, inputs: Inputs, restart: str | None = None) -> Path:
    """Makes the run's model, in one round or in up to `cfg.rounds`; returns the run's folder.

    Of several rounds the model is that of the last one that is kept. `restart` names the work of rounds that may be set
    aside. Raises BadInput where the pool was imported, or no problem is held out.
    """
    if cfg.rounds == 1:
        return pruned(cfg, inputs)
    if inputs.train is None:
        raise BadInput(f"rounds={cfg.rounds}: pool={cfg.pool} was imported; a next round has to sample: set rounds=1")
    judges = _held_out(inputs.train, cfg.batch.hold_out or HOLD_OUT)
    run = open_run(cfg, inputs.source.commit)
    models = {_BASE: inputs.source}
    for number in range(1, cfg.rounds + 1):
        before = list(models)[-1]
        own = _of_round(cfg, number, models[before])
        # A round made anew has another model, whose samples the next round needs anew too.
        inputs = preflight(own, ("train",), ANY if restart and number > 1 else restart)
        if number == 1:  # the base answers now: from judging to sampling a round's weights can stay in memory then
            _graded(cfg, models, judges, run)
        folder = pruned(own, inputs)
        model = find_model(str(folder / "model"))
        lost = _fallen(cfg, models | {_name(number): model}, judges, run)
        if _kept(number, lost):
            models[_name(number)] = model
        if any(lost.values()):
            break
    processes.once(lambda: _hand_over(run, len(models) - 1))
    return run


def _held_out(train: PromptSet, share: float) -> PromptSet:
    problems = [p for p in train.problems if held_out(p.problem_id, share)]
    if not problems:
        raise BadInput(f"batch.hold_out={share:g}: holds out none of {len(train.problems)} problems; raise it")
    return replace(train, problems=problems)


def _of_round(cfg: RunConfig, number: int, source: SourceModel) -> RunConfig:
    """Returns the configuration of one round, which begins from the model `source`."""
    own = cfg.of_round(number)
    if number == 1:
        return replace(own, revision=source.commit or cfg.revision)  # the weights that the rounds are judged against
    reference = cfg.of_round(1).run if cfg.reference == FIRST else cfg.reference
    return replace(own, model=str(source.folder), revision=None, pool=None, reference=reference)


def _fallen(cfg: RunConfig, models: Mapping[str, SourceModel], judges: PromptSet, run: Path) -> dict[str, list[str]]:
    """Returns where the accuracy of the last of `models` fell, by the model that it is compared with; tells of it."""
    graded = _graded(cfg, models, judges, run)
    before, last = list(models)[-2:]
    number = len(models) - 1

    def judged() -> dict[str, list[str]]:
        by_model = {of_model.model: of_model for of_model in runs_of(graded, models)}
        lost, figures = {}, []
        for other in dict.fromkeys((_BASE, before)):
            _, result = compared(cfg, [by_model[other], by_model[last]])
            lost[other] = list(fallen(result))
            figures.append(result.overall)
        earlier = read_json(run / _FILE) if (run / _FILE).exists() else []
        told = {"round": number, "kept": _kept(number, lost), "fell": lost, "figures": to_json(figures[0])}
        write_json(run / _FILE, [*(of for of in earlier if of["round"] < number), told])
        _say(number, cfg.rounds, figures[0], lost)
        return lost

    return processes.once(judged)


def _graded(
    cfg: RunConfig, models: Mapping[str, SourceModel], judges: PromptSet, run: Path
) -> dict[tuple[str, str], tuple[Pool, ShardedTable]]:
    return graded_pools(cfg, models, {(name, _SET): judges for name in models}, run / "held_out")


def _say(number: int, rounds: int, figures: Summary, lost: Mapping[str, list[str]]) -> None:
    assert figures.change is not None
    accuracy, tokens = figures.change.accuracy.value, figures.change.tokens.value
    against = [f"against {other}: {', '.join(places)}" for other, places in lost.items() if places]
    verdict = "kept" if _kept(number, lost) else "not kept"
    verdict += f", and the last: accuracy fell {'; '.join(against)}" if against else ""
    say(
        f"round {number} of {rounds}: {verdict}; on {figures.problems} held-out problems, against the base, accuracy "
        f"{100 * accuracy:+.1f} points, tokens {100 * tokens:+.1f}%"
    )


def _kept(number: int, lost: Mapping[str, list[str]]) -> bool:
    return number == 1 or not any(lost.values())


def _hand_over(run: Path, number: int) -> None:
    """Makes the model of round `number` that of the run; its card tells of all rounds."""
    made, out = run / f"round-{number}" / "model", run / "model"
    first = read_json(run / "round-1" / "model" / PROVENANCE)
    told: dict[str, Any] = {name: first[name] for name in ("base", "hub_name", "embedded", "revision")}
    provenance = read_json(made / PROVENANCE) | told | {"rounds": number}
    if (out / CONFIG).is_file() and (out / PROVENANCE).is_file() and read_json(out / PROVENANCE) == provenance:
        return
    with filled(out, CONFIG) as temporary:
        for name in read_sums(made):
            copy_or_link(made / name, temporary / name)
        write_json(temporary / PROVENANCE, provenance)
        write_card(temporary)


def _name(number: int) -> str:
    return f"round {number}"
