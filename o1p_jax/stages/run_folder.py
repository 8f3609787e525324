"""A run's folder: what lies in it, and what of that a changed configuration has no use for.

config.json      what the run was last started with, and the commit of a hub's model
pool/            presampled solutions and their grades, unless the run was given a pool beside it
weights/         what each solution is worth to the method
reference/       log-probabilities of the kept solutions under the reference model
checkpoints/     training states; metrics.jsonl and tensorboard/ beside them
model/           the result, a Hugging Face folder
evaluation/      report.html, report.json, table.md and the pools behind them
set_aside/       what `--restart` has taken out of the way
errors/          traces of internal errors
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from o1p_jax.config.saved import CONFIG, load_saved, save_config
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.pool import CONTENTS, Pool
from o1p_jax.devices import processes
from o1p_jax.runtime.claims import Claim, sole_owner
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.fields import SAMPLES, TRAINING
from o1p_jax.runtime.files import check_folder, disk_errors
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.sums import SUMS
from o1p_jax.stages.identity import Identity
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import differences

_OF_TRAINING = (
    "weights",
    "metrics.jsonl",
    "tensorboard",
    "digest.txt",
    "_digest.sha256",
    "model",
    "evaluation/report.html",
    "evaluation/report.json",
    "evaluation/table.md",
    f"evaluation/{SUMS}",
    "checkpoints",
)
_SET_ASIDE = {SAMPLES: (*_OF_TRAINING, "pool"), TRAINING: _OF_TRAINING}
"""Result that is made anew -> what of the run's folder is set aside for it.

The last entry is the one that tells that old work is in the way, so that a start after a kill sets the rest aside too.
"""
ANY = f"{SAMPLES} or {TRAINING}"
"""Stands, between stages, for whatever result is made anew: of a round whose work the round before it takes away."""
_NOT_OURS = re.compile(r"\..*|logs?|errors|.*\.(out|err|log)|.*\.[oe]\d+")
"""Names in a folder that may become a run's all the same: hidden files, and logs of schedulers."""


class _Loss(NamedTuple):
    """Finished work that a changed configuration has no use for."""

    result: str
    work: str
    reason: str


def kept_revision(cfg: RunConfig) -> str | None:
    """Returns the commit of the run's model that its first start found, or `cfg.revision` where there is none.

    There is none where `cfg` now asks for another model or revision. Raises BadInput where the run's folder holds
    something else than a run, or can't be read.
    """
    run = Path(cfg.run)
    check_folder("run", run)
    if not (run / CONFIG).exists():
        others = [f.name for f in run.iterdir() if not _NOT_OURS.fullmatch(f.name)] if run.exists() else []
        if others and not (run / CONFIG).exists():  # another process may have written it just now
            raise BadInput(f"run={run}: exists and is not a run folder (it holds {others[0]}); name another")
        return cfg.revision
    then, commit = load_saved(run / CONFIG)
    same = (then.model, then.revision) == (cfg.model, cfg.revision)
    return commit if same and commit is not None else cfg.revision


def hint_at_rounds(run: Path) -> str:
    """Returns what to name instead of the run `run` where what is asked for lies in its rounds; else nothing."""
    rounds = sorted(run.glob("round-*"), key=lambda path: (len(path.name), path.name))
    return f"its rounds have their own: name one, such as {rounds[-1]}" if rounds else ""


def dated(cfg: RunConfig, pools: Iterable[Path], run: Path | None = None) -> RunConfig:
    """Returns `cfg` with a date for the chat templates, so that prompts made on several days are the same.

    The date is the one that `cfg` names, else that of the first of `pools` that lies there and has one, else that of
    `run`, else today's.
    """
    if cfg.problems.date is not None:
        return cfg

    def found() -> str:
        dates = [Pool(path).facts.get("date") for path in pools if Pool.lies_in(path)]
        if run is not None and (run / CONFIG).is_file():
            dates.append(load_saved(run / CONFIG)[0].problems.date)
        return next(filter(None, dates), date.today().isoformat())

    return replace(cfg, problems=replace(cfg.problems, date=processes.once(found)))


def open_run(cfg: RunConfig, commit: str | None) -> Path:
    """Returns the run's folder, made if there is none, after writing `cfg` and the model's `commit` to config.json.

    What killed processes left half-written in the folder, or in the run's pool, is removed.
    """
    run = Path(cfg.run)
    if processes.leader():
        save_config(run / CONFIG, cfg, commit)
        for folder in (run, *([] if cfg.pool is None else [Path(cfg.pool)])):
            remove_leftovers(hidden_below(folder))
    return run


@contextmanager
def owned(run: Path) -> Iterator[Callable[[], None]]:
    """Makes this job the only one that weighs and trains in `run`, inside the block; waits while another one does.

    Yields a function that raises `ProcessLost` where the run has become another job's, because this one stood still for
    long. Of a job of several processes the first one owns the run.
    """
    with ExitStack() as stack:
        claims: list[Claim] = []

        def own() -> None:
            claims.append(stack.enter_context(sole_owner(run, "weighs or trains")))
            own_files = ("weights", "model", "metrics.jsonl", "digest.txt")
            remove_leftovers((path for name in own_files for path in _half_written(run / name)), owned=True)

        def check() -> None:
            for claim in claims:
                claim.check()

        processes.once(own)
        yield lambda: processes.once(check)


def _half_written(path: Path) -> Iterator[Path]:
    return path.parent.glob(f".{path.name}.*")


def make_room(cfg: RunConfig, samples: Identity | None, training: Identity, restart: str | None) -> None:
    """Sets aside what of the run's work was made otherwise than `cfg` asks for, if `restart` names it.

    `samples` and `training` are the identities that `cfg` gives; None for `samples`: the pool's samples stand as they
    are. Raises BadInput that says what would be lost, and why, where `restart` does not name that work. Work that would
    not be lost, or is made again within seconds, does not concern this function.
    """
    if restart not in (None, ANY, *_SET_ASIDE):
        raise BadInput(
            f"--restart={restart}: must be {' or '.join(_SET_ASIDE)}; nothing else is lost when a field changes"
        )
    processes.once(lambda: _make_room(cfg, samples, training, restart))


def _make_room(cfg: RunConfig, samples: Identity | None, training: Identity, restart: str | None) -> None:
    run = Path(cfg.run)
    losses = [*_lost_samples(cfg, samples), *_lost_training(run, training)]
    if not losses:
        if restart not in (None, ANY):
            say(f"--restart={restart}: nothing in {run} was made otherwise; going on from what is there")
        return
    first, works = losses[0], " and ".join(loss.work for loss in losses)
    restart = first.result if restart == ANY else restart
    if restart is None:
        raise BadInput(
            f"run={run}: {first.reason} would throw away {works}; set it back, name another run, or add "
            f"--restart={first.result}, which sets the old work aside"
        )
    if restart != first.result:
        raise BadInput(
            f"--restart={restart}: {first.reason} would throw away {works}; if that is meant, say "
            f"--restart={first.result}"
        )
    aside = _next_folder(run / "set_aside")
    with sole_owner(run, "weighs or trains"), disk_errors(aside):
        for name in _SET_ASIDE[restart]:
            if (run / name).exists():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (run / name).rename(aside / name)
    say(f"{works}: set aside in {aside}, because of {first.reason}")


def _lost_samples(cfg: RunConfig, wanted: Identity | None) -> list[_Loss]:
    """Returns the samples in the run's folder that `wanted` has no use for, as one loss or none.

    A pool beside the run is not the run's to set aside: `stages.pool.check_pool` looks at it.
    """
    path = Path(cfg.run) / "pool"
    if cfg.pool is not None or wanted is None or not Pool.lies_in(path):
        return []
    pool = Pool(path)
    differing = pool.differences(wanted)
    if not differing:
        return []
    done = pool.samples.shards - len(pool.samples.missing_shards())
    if not done:  # prompts alone, made within seconds
        shutil.rmtree(path)
        return []
    name = differing[0]
    reason = _reason(name, pool.identity.get(name), wanted.get(name))
    return [_Loss(SAMPLES, f"the samples ({done} of {pool.samples.shards} shards)", reason)]


def _lost_training(run: Path, wanted: Identity) -> list[_Loss]:
    newest = checkpoint.newest_facts(run / "checkpoints")
    if newest is None:
        return []
    folder, facts = newest
    for name, (then, now) in differences(facts, wanted).items():
        work = f"the training (step {int(folder.name)} of {facts['steps']})"
        return [_Loss(TRAINING, work, _reason(name, then, now))]
    return []


def _reason(name: str, then: Any, now: Any) -> str:
    return f"a change of {CONTENTS[name]}" if name in CONTENTS else f"{name}={now} instead of {then}"


def _next_folder(root: Path) -> Path:
    taken = [int(f.name) for f in root.glob("*") if f.name.isdecimal()]
    return root / str(max(taken, default=0) + 1)
