"""From kept samples to a trained checkpoint: read `train` from top to bottom."""

import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from o1p_jax.config.text import fingerprint, flatten
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import devices_along
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.runtime import files, progress
from o1p_jax.runtime.errors import BadInput, CorruptData, NonFinite, Preempted
from o1p_jax.training import checkpoint
from o1p_jax.training.metrics import MetricsLog
from o1p_jax.training.packing import Batch, fitting, make_steps, step_iterator
from o1p_jax.training.reference import References
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.step import (
    TrainState,
    local_rows,
    make_logprob_fn,
    make_train_step,
    put_batch,
    state_shardings,
    train_state,
)
from o1p_jax.training.trainable import layer_splits, split_frozen


def train(
    cfg: RunConfig, samples: TrainingSet, source: Path, mesh: Mesh, run: Path,
    constants: Mapping[str, float] | None = None,
) -> Path:  # fmt: skip
    """Trains the model in the folder `source` on `samples`; returns the last checkpoint's folder.

    In `run` it writes checkpoints/, reference/ (log-probs), metrics.jsonl, tensorboard/ and digest.txt, and goes on
    from what it finds there. `constants` are figures of the data that stand beside each step's metrics.
    Raises `Preempted` after saving on SIGTERM or SIGINT, `NonFinite` after `optim.max_bad_steps` bad steps in a row.
    """
    # -- The plan: what each step trains on --
    model = load_config(source)
    splits = layer_splits(model.layers, cfg.compute.trainable_layers)
    fits = fitting(samples, cfg.batch.row_length)
    if len(fits) < len(samples):
        progress.say(
            f"{len(samples) - len(fits)} of {len(samples)} samples exceed batch.row_length="
            f"{cfg.batch.row_length} and are left out"
        )
    plan = make_steps(fits.lengths, cfg.batch, cfg.optim.epochs, cfg.seed, devices_along(mesh))
    last, rows, here = len(plan.packed), plan.rows, local_rows(mesh, plan.rows)

    # -- What an earlier run left --
    root = run / "checkpoints"
    weights = _weights_fingerprint(source)
    facts = {"weights": weights, "samples": fingerprint(fits.digests)}
    facts |= flatten(cfg) | {"processes": processes.count()}
    folder = checkpoint.newest(root)
    done = 0 if folder is None else int(folder.name)
    if folder is not None:
        _check_same_run(root, checkpoint.facts_of(folder), facts)
        if done == last and processes.agreed((run / "digest.txt").exists()):
            progress.say(f"{folder}: already the last step")
            return folder

    with _stop_signals() as stopped:
        # -- The model: float32 master weights of what is trained, the rest in the type it is computed in --
        params, frozen = split_frozen(load_params(source, model, mesh, splits=splits), splits)
        frozen = jax.tree.map(lambda x: x.astype(cfg.compute.dtype), frozen)

        # -- Reference log-probs: once, by the model as it was loaded --
        logprob_fn = make_logprob_fn(model, splits, cfg.compute, mesh)

        def logprobs(batch: Batch) -> np.ndarray:
            if stopped:
                raise Preempted(f"{run}/reference: stopped by {stopped[0]}; run the same command again to go on")
            return np.asarray(logprob_fn((params, frozen), put_batch(batch, mesh, rows)))

        made_by = {"weights": weights, "dtype": cfg.compute.dtype}
        references = References(fits, cfg.batch, here)
        mine = fits.read(references.wanted | plan.samples_at(here))
        ref_logprobs = references.compute(mine, run / "reference", made_by, logprobs)

        # -- The state, new or restored --
        placed, _ = split_frozen(param_shardings(model, mesh, splits), splits)
        shardings = state_shardings(placed, params, cfg.optim, mesh)
        data = step_iterator(mine, ref_logprobs, plan, here, done)
        state = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=shardings, donate_argnums=0)(params)
        if folder is not None:
            parts = checkpoint.restore(folder, _parts(state))
            state = dataclasses.replace(parts["optimizer"], params=parts["params"])

        # -- The loop: a step is on its way before the last one's metrics are read --
        progress.say(
            f"training on {len(fits)} samples: {last} steps of up to {plan.microbatches} x {plan.rows} rows x "
            f"{plan.row_length} tokens, {plan.fill:.0%} filled" + (f", from step {done}" if done else "")
        )
        step_fn = make_train_step(model, splits, cfg, last, mesh, shardings)
        with (
            closing(MetricsLog(run, done, constants or {})) as log,
            progress.track("train", total=last, unit="steps", done=done) as bar,
        ):

            def report(step: int, metrics: Mapping[str, Any]) -> None:
                values = log.write(step, metrics)
                bar.advance(1, f"loss {values['loss']:.4f}")
                if values["skipped_in_row"] >= cfg.optim.max_bad_steps:
                    raise NonFinite(
                        f"step {step}: loss or gradient not finite for optim.max_bad_steps="
                        f"{cfg.optim.max_bad_steps} steps; lower optim.learning_rate, see {log.path}"
                    )

            pending = None
            for step in range(done + 1, last + 1):
                any_stopped = processes.any_of(stopped, mesh)
                state, metrics = step_fn(state, frozen, put_batch(next(data), mesh, rows))
                if pending:
                    report(*pending)
                pending = step, metrics
                stop = any_stopped()
                if step % cfg.checkpoint.every == 0 or step == last or stop:
                    report(*pending)
                    pending = None
                    folder = checkpoint.save(root, step, _parts(state), facts, cfg.checkpoint.keep)
                if stop and step < last:
                    by = stopped[0] if stopped else "another process's signal"
                    raise Preempted(f"{folder}: saved on {by}; run the same command again to go on")

    # -- The end --
    assert folder is not None
    digest = checkpoint.state_digest((state.params, state.opt_state))
    if processes.leader():
        files.write_atomic(run / "digest.txt", digest + "\n")
    progress.say(f"SHA-256 of parameters and optimizer state: {digest}")
    return folder


def trained_params(folder: Path, source: Path, mesh: Mesh) -> tuple[nnx.State, tuple[int, ...] | None]:
    """All parameters of the model that the checkpoint `folder` was trained from `source` to, and the decoder's splits.

    float32. Raises `CorruptData` where the checkpoint isn't whole, `BadInput` where `source` holds other weights.
    """
    if fault := checkpoint.damage(folder):
        raise CorruptData(f"{folder}: {fault}; name another checkpoint or train again")
    facts = checkpoint.facts_of(folder)
    if facts["weights"] != _weights_fingerprint(source):
        raise BadInput(f"{source}: not the weights that {folder} was trained from; name the model it was trained from")
    model = load_config(source)
    splits = layer_splits(model.layers, facts["compute.trainable_layers"])
    params, frozen = split_frozen(load_params(source, model, mesh, splits=splits), splits)
    params = checkpoint.restore(folder, {"params": params})["params"]
    return nnx.merge_state(params, frozen), splits


def _parts(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds; the parameters apart, because export needs nothing else.

    The step's number says where the data stands.
    """
    return {"params": state.params, "optimizer": dataclasses.replace(state, params=None)}


def _weights_fingerprint(source: Path) -> str:
    names = sorted(f.name for f in source.glob("*.safetensors"))
    return fingerprint(processes.share(names, lambda name: files.sha256_file(source / name)))


_REPEATED_S = 3.0

_FIXED = ("weights", "samples", "seed", "method.", "optim.", "batch.sequences", "batch.row_length", "compute.dtype",
          "compute.trainable_layers")  # fmt: skip
"""What must not change between the parts of one run. The mesh may: other devices add up in another order, no more."""


def _check_same_run(root: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in now:
        if name.startswith(_FIXED) and then.get(name) != now[name]:
            what = f"other {name}" if name in ("weights", "samples") else f"{name}={then.get(name)}, not {now[name]}"
            raise BadInput(f"{root}: made with {what}; set it back or choose another run folder (--run)")
    if then["mesh"] != now["mesh"]:
        progress.say(f"{root}: made on mesh {then['mesh']}, going on on {now['mesh']}: equal to rounding only")
    if then.get("processes", 1) != now["processes"]:
        progress.say(f"{root}: made by {then.get('processes', 1)} processes, going on with {now['processes']}")


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """A list that the name of SIGTERM or SIGINT is put into when it comes; a later one acts as it always does.

    Not one at once: a stop often comes twice, to the whole group and passed on by the parent.
    """
    stopped: list[str] = []
    before: dict[int, Any] = {}
    first = 0.0

    def note(number: int, _frame: Any) -> None:
        nonlocal first
        if not stopped:
            first = time.monotonic()
        elif time.monotonic() - first > _REPEATED_S:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        stopped.append(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, note)
    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
