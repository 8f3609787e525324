"""The training loop, from kept samples to a trained checkpoint: read `train` from top to bottom."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from o1p_jax.config.mesh import mesh_text
from o1p_jax.config.stages import fields_of
from o1p_jax.config.text import fingerprint, plain
from o1p_jax.config.tree import TrainingConfig
from o1p_jax.devices import processes
from o1p_jax.devices.mesh import devices_along
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime import files, progress
from o1p_jax.runtime.errors import BadInput, CorruptData, NonFinite, Preempted
from o1p_jax.runtime.fields import TRAINING
from o1p_jax.runtime.signals import stop_signals
from o1p_jax.training import checkpoint
from o1p_jax.training.memory import tokens_per_device
from o1p_jax.training.metrics import MetricsLog
from o1p_jax.training.mismatch import mismatch
from o1p_jax.training.packing import Batch, check_fits, make_steps, samples_at, step_iterator
from o1p_jax.training.reference import References
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.shapes import Room, Shape
from o1p_jax.training.step import (
    TrainState,
    attention_of,
    local_rows,
    make_logprob_fn,
    make_train_step,
    put_batch,
    state_shardings,
    train_state,
)
from o1p_jax.training.trainable import layer_splits, split_frozen

DIGEST = "digest.txt"
_DIGESTS = {"model_sha256": "weights", "trained_sha256": "samples"}


def train(
    cfg: TrainingConfig, samples: TrainingSet, source: SourceModel, mesh: Mesh, run: Path,
    *, made_by: Mapping[str, Any] | None = None, notes: Mapping[str, Any] | None = None,
    constants: Mapping[str, float] | None = None, reference: SourceModel | None = None,
    reference_folder: Path | None = None, still_own: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Trains the model `source` on `samples`; returns the last checkpoint's folder.

    The ratio's denominators are probabilities under the model `reference`; None: under `source`. The function writes
    checkpoints/, metrics.jsonl, tensorboard/ and digest.txt in `run`, and the reference's log-probs in
    `reference_folder` (by default reference/ in `run`). It goes on from what it finds there, if that was made by the
    same configuration, model and samples. `made_by` (JSON values) says what samples and reference were made by;
    `notes` are kept with each checkpoint for the stages after training; `constants` are figures of the data that
    stand beside each step's metrics. Raises `Preempted` after saving on SIGTERM or SIGINT, `NonFinite` after
    `optim.max_bad_steps` bad steps in a row. `still_own` is called before a checkpoint is written, and raises where
    the run has become another process's.
    """
    # -- The steps: what each of them trains on --
    source.check_unchanged()
    model = source.decoder
    splits = layer_splits(model.layers, cfg.compute.trainable_layers)
    room = Room(
        devices=devices_along(mesh),
        parts=mesh.shape["context"],
        tokens=tokens_per_device(
            cfg.batch.tokens_per_device, model, cfg.compute, mesh, max(samples.unit_lengths, default=0)
        ),
        row_length=cfg.batch.row_length,
    )
    check_fits(samples.unit_lengths, room)
    steps = make_steps(samples.lengths, cfg.batch, cfg.optim.epochs, cfg.seed, room, samples.units, cfg.optim.steps)
    last, my_rows = len(steps.packed), [local_rows(mesh, shape.rows) for shape in steps.shapes]

    # -- What an earlier start left --
    root = run / "checkpoints"
    facts = {
        "made_by": {
            **(made_by or {}),
            **fields_of(cfg, TRAINING),
            "model_sha256": source.digest,
            "trained_sha256": fingerprint([samples.digests, samples.weights]),
        },
        "notes": dict(notes or {}),
        "steps": last,
        "fill": steps.fill,
        "mesh": mesh_text(mesh.shape),
        "processes": processes.count(),
    }
    folder = checkpoint.newest(root)
    done = 0 if folder is None else int(folder.name)
    if folder is not None:
        _check_same_run(root, checkpoint.facts_of(folder), facts)
        if done == last and processes.agreed(_digest_is_whole(run)):
            return folder

    with stop_signals() as stopped:
        # -- The model: float32 master weights of what is trained, the rest in the type it is computed in --
        def loaded(of: SourceModel) -> tuple[nnx.State, nnx.State]:
            of.check_unchanged()
            params, frozen = split_frozen(load_params(of.folder, model, mesh, splits=splits), splits)
            return params, jax.tree.map(lambda x: x.astype(cfg.compute.dtype), frozen)

        # -- Reference log-probs: once, by the model as it was loaded --
        reference = reference or source
        weights = loaded(reference)
        kept = reference_folder or run / "reference"
        logprob_fn = make_logprob_fn(model, splits, cfg.compute, mesh)

        def logprobs(batch: Batch, shape: Shape) -> np.ndarray:
            if stopped:
                raise Preempted(f"{kept}: stopped by {stopped[0]}; run the same command again to go on")
            return np.asarray(logprob_fn(weights, put_batch(batch, mesh, shape.rows)))

        computed_by = {"weights": reference.digest, "dtype": cfg.compute.dtype}
        every_row = [range(shape.rows) for shape in steps.shapes]
        planned = References(samples, steps.packer, my_rows, samples_at(steps.packed, every_row))
        mine = samples.read(planned.wanted | samples_at(steps.packed, my_rows))
        ref_logprobs = planned.compute(mine, kept, computed_by, logprobs)
        constants = {**(constants or {})}
        if reference.digest == source.digest and (found := mismatch(samples.told(), ref_logprobs)):
            progress.say(found.line())
            constants |= found.for_metrics()

        # -- The state, new or restored --
        if reference.digest != source.digest:
            del weights  # both have no room
            weights = loaded(source)
        params, frozen = weights
        placed, _ = split_frozen(param_shardings(model, mesh, splits), splits)
        shardings = state_shardings(placed, params, cfg.optim, mesh)
        data = step_iterator(mine, ref_logprobs, steps, my_rows, done)
        state = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=shardings, donate_argnums=0)(params)
        if folder is not None:
            parts = checkpoint.restore(folder, _parts(state))
            state = dataclasses.replace(parts["optimizer"], params=parts["params"])

        # -- The loop: a step is on its way before the last one's metrics are read, or a checkpoint written --
        attention = dict.fromkeys(
            attention_of(model, cfg.compute, mesh, shape, segments).by
            for shape, segments in zip(steps.shapes, steps.segments, strict=True)
        )
        progress.say(
            f"training on {len(samples)} samples: {last} steps{f', from step {done}' if done else ''}, in microbatches "
            f"of {steps.text}; {steps.fill:.0%} of their slots hold a token; attention by {' and '.join(attention)}"
        )
        step_fn = make_train_step(model, splits, cfg, last, mesh, shardings)
        with (
            closing(MetricsLog(run, done, constants)) as log,
            progress.track("train", total=last, unit="steps", done=done) as bar,
            checkpoint.Writer(root, cfg.checkpoint.keep) as writer,
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
                batches = zip(next(data), steps.shapes, strict=True)
                on_devices = tuple(put_batch(batch, mesh, shape.rows) for batch, shape in batches)
                state, metrics = step_fn(state, frozen, on_devices)
                if pending:
                    report(*pending)
                pending = step, metrics
                stop = any_stopped()
                if step % cfg.checkpoint.every == 0 or step == last or stop:
                    report(*pending)
                    pending = None
                    still_own()
                    folder = writer.save(step, _parts(state), facts)
                if stop and step < last:
                    writer.wait()
                    by = stopped[0] if stopped else "another process's signal"
                    raise Preempted(f"{folder}: saved on {by}; run the same command again to go on")

    # -- The end --
    assert folder is not None
    digest = checkpoint.state_digest((state.params, state.opt_state))
    if processes.leader():
        files.write_with_sum(run / DIGEST, digest + "\n")
    progress.say(f"SHA-256 of parameters and optimizer state: {digest}")
    return folder


def finished(run: Path, made_by: Mapping[str, Any]) -> Path | None:
    """Returns the checkpoint of the last step, where the training in `run` came to its end and was made by `made_by`.

    Returns None where there is something left to do. Nothing of the checkpoint is read but its facts.
    """
    newest = checkpoint.newest_facts(run / "checkpoints")
    if newest is None or not _digest_is_whole(run):
        return None
    folder, facts = newest
    return folder if facts["steps"] == int(folder.name) and not differences(facts, made_by) else None


def _digest_is_whole(run: Path) -> bool:
    """Returns whether digest.txt is there as it was written; where it is not, it is made again from the checkpoint."""
    try:
        files.read_summed(run / DIGEST)
    except (FileNotFoundError, CorruptData):
        return False
    return True


def differences(facts: Mapping[str, Any], made_by: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns name -> (value then, value now) of the values in `made_by` that a checkpoint's `facts` do not share."""
    then = facts["made_by"]
    return {name: (then.get(name), now) for name, now in plain(made_by).items() if then.get(name) != now}


def trained_params(folder: Path, source: SourceModel, mesh: Mesh) -> tuple[nnx.State, tuple[int, ...] | None]:
    """Returns all parameters of the model trained from `source` to the checkpoint `folder`, and the decoder's splits.

    The parameters are float32. Raises `CorruptData` where the checkpoint isn't whole, `BadInput` where `source` holds
    other weights than the training began from.
    """
    if fault := checkpoint.damage(folder):
        raise CorruptData(f"{folder}: {fault}; name another checkpoint or train again")
    made_by = checkpoint.facts_of(folder)["made_by"]
    if made_by["model_sha256"] != source.digest:
        raise BadInput(
            f"{source.folder}: not the weights that {folder} was trained from; name the model it was trained from"
        )
    source.check_unchanged()
    splits = layer_splits(source.decoder.layers, made_by["compute.trainable_layers"])
    params, frozen = split_frozen(load_params(source.folder, source.decoder, mesh, splits=splits), splits)
    params = checkpoint.restore(folder, {"params": params})["params"]
    return nnx.merge_state(params, frozen), splits


def _parts(state: TrainState) -> dict[str, Any]:
    """Returns what a checkpoint holds, the parameters apart, because export needs nothing else.

    The position in the data is not kept: the step's number tells it.
    """
    return {"params": state.params, "optimizer": dataclasses.replace(state, params=None)}


def _check_same_run(root: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises BadInput where a run would go on with other values than it began with; says if mesh or processes differ.

    The mesh may change: other devices add up in another order, no more.
    """
    for name, (before, after) in differences(then, now["made_by"]).items():
        what = f"other {_DIGESTS[name]}" if name in _DIGESTS else f"{name}={before}, not {after}"
        raise BadInput(f"{root}: made with {what}; set it back or choose another run folder (--run)")
    if then["mesh"] != now["mesh"]:
        progress.say(f"{root}: made on mesh {then['mesh']}, going on on {now['mesh']}: equal to rounding only")
    if then["processes"] != now["processes"]:
        progress.say(f"{root}: made by {then['processes']} processes, going on with {now['processes']}")
