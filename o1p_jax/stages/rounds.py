"""Several rounds: the model that one round has made samples, and is trained, in the next.

A round is a run of its own, in the folder round-N of the run, from the model of the round before. Training problems
that no round is trained on judge it: a round is kept where its accuracy lies below that of the base, or of the round
before, on no level and not overall beyond the change's interval. The first round that is not kept is the last one.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.prompts import PromptSet
from o1p_jax.devices import processes
from o1p_jax.evaluation.page import to_json
from o1p_jax.evaluation.summary import Graded, Result, compare
from o1p_jax.evaluation.table import fallen
from o1p_jax.models.hf.hub import CONFIG
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import copy_or_link, read_json, write_json
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.sums import filled, read_sums
from o1p_jax.stages.card import PROVENANCE, write_card
from o1p_jax.stages.evaluate import graded_pools, runs_of
from o1p_jax.stages.preflight import Inputs, preflight
from o1p_jax.stages.prune import pruned
from o1p_jax.stages.run_folder import open_run
from o1p_jax.stages.weigh import held_out

HOLD_OUT = 1 / 8
"""The share of the training problems that is held out where `batch.hold_out` names none."""
_BASE, _SET = "base", "held out"
_FILE = "rounds.json"


def prune_in_rounds(cfg: RunConfig, inputs: Inputs) -> Path:
    """Does up to `cfg.rounds` rounds, and exports the model of the last one that is kept; returns the run's folder.

    Raises BadInput where the pool was imported, no problem is held out, or the first round is not kept.
    """
    if inputs.train is None:
        raise BadInput(f"rounds={cfg.rounds}: pool={cfg.pool} was imported; a next round needs problems to sample")
    share = cfg.batch.hold_out or HOLD_OUT
    judges = _held_out(inputs.train, share)
    run = open_run(cfg, inputs.source.commit)
    models, told = {_BASE: inputs.source}, []
    for number in range(1, cfg.rounds + 1):
        before = list(models)[-1]
        own = _of_round(cfg, run, number, models[before], share)
        folder = pruned(own, preflight(own, ("train",)))
        model = find_model(str(folder / "model"))
        figures = _judged(cfg, models | {_name(number): model}, judges, run / "held_out")
        lost = {other: list(fallen(of)) for other, of in figures.items()}
        kept = not any(lost.values())
        told.append({"round": number, "kept": kept, "fell": lost, "figures": to_json(figures[_BASE].overall)})
        processes.once(lambda: write_json(run / _FILE, told))
        _say(number, cfg.rounds, figures[_BASE], lost)
        if not kept:
            break
        models[_name(number)] = model
    if len(models) == 1:
        raise BadInput(
            f"run={run}: round 1 is not kept, and there is no model before it but the base; its model is in "
            f"{run / 'round-1' / 'model'}; train more gently (--optim.learning_rate, --method.lam), or with rounds=1"
        )
    processes.once(lambda: _hand_over(run, len(models) - 1))
    return run


def _held_out(train: PromptSet, share: float) -> PromptSet:
    problems = [p for p in train.problems if held_out(p.problem_id, share)]
    if not problems:
        raise BadInput(f"batch.hold_out={share:g}: holds out none of {len(train.problems)} problems; raise it")
    return replace(train, problems=problems)


def _of_round(cfg: RunConfig, run: Path, number: int, source: SourceModel, share: float) -> RunConfig:
    """Returns the configuration of one round, as that of a run by itself."""
    own = replace(cfg, rounds=1, run=str(run / f"round-{number}"), batch=replace(cfg.batch, hold_out=share))
    return own if number == 1 else replace(own, model=str(source.folder), revision=None, pool=None)


def _judged(cfg: RunConfig, models: Mapping[str, SourceModel], judges: PromptSet, out: Path) -> dict[str, Result]:
    """Returns the figures of the last of `models` on the held-out problems, against the base and the model before."""
    before, last = list(models)[-2:]
    runs = runs_of(graded_pools(cfg, models, {(name, _SET): judges for name in models}, out), models)
    how = cfg.evaluation
    by_model: dict[str, Graded] = {run.model: run for run in runs}

    def against(other: str) -> Result:
        how = cfg.evaluation
        pair = [by_model[other], by_model[last]]
        _, result = compare(
            pair, budgets=how.ladder, resamples=how.bootstrap, seed=cfg.seed, as_printed=how.aes_as_printed
        )
        return result

    return {other: against(other) for other in dict.fromkeys((_BASE, before))}


def _say(number: int, rounds: int, result: Result, lost: Mapping[str, list[str]]) -> None:
    change = result.overall.change
    assert change is not None
    against = [f"against {other}: {', '.join(levels)}" for other, levels in lost.items() if levels]
    verdict = f"not kept: accuracy fell {'; '.join(against)}" if against else "kept"
    say(
        f"round {number} of {rounds}: {verdict}; on {result.overall.problems} held-out problems, against the base, "
        f"accuracy {100 * change.accuracy.value:+.1f} points, tokens {100 * change.tokens.value:+.1f}%"
    )


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
