"""The training state, where each of its arrays lies, and the one jitted step.

Shapes as in packing.py. A step's batch is a tuple of `Batch`, one for each shape of microbatches, whose leading axis
are its A microbatches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from o1p_jax.config.tree import ComputeConfig, OptimConfig, TrainingConfig
from o1p_jax.devices.axes import DATA_AXES
from o1p_jax.methods import method_of
from o1p_jax.methods.base import Sequences
from o1p_jax.methods.objectives import LossSums
from o1p_jax.models.attention.packed import Served, served
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import graph
from o1p_jax.models.precision import products_of
from o1p_jax.training.logprobs import token_logprobs
from o1p_jax.training.optimizer import learning_rate, make_optimizer
from o1p_jax.training.packing import Batch
from o1p_jax.training.shapes import Shape

Metrics = dict[str, Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that changes in training, as arrays; or, in the same tree, the arrays' shapes or shardings.

    Frozen parameters aren't part of it: they are read from the model's files.
    """

    step: Any
    """int32: steps done, skipped ones included; the next batch's number."""
    params: Any
    """The trainable parameters, float32; None where a checkpoint stores them apart."""
    opt_state: Any
    """Adam's moments, float32, each laid out on the devices as its parameter."""
    skipped: Any
    """int32: steps skipped because loss or gradient was not finite."""
    skipped_in_row: Any


def train_state(params: nnx.State, optim: OptimConfig) -> TrainState:
    """Returns the state before the first step.

    Jit the function with `state_shardings` as its output's, so that the moments are born sharded.
    """
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, make_optimizer(optim).init(params), zero, zero)


def state_shardings(shardings: nnx.State, params: nnx.State, optim: OptimConfig, mesh: Mesh) -> TrainState:
    """Returns a `TrainState` of shardings: each moment lies as its parameter does, counters lie on every device.

    `shardings` and `params` (arrays or their shapes) are trees of the same structure, of trainable parameters only.
    """
    everywhere = NamedSharding(mesh, P())
    shapes = jax.eval_shape(lambda p: train_state(p, optim), params)
    opt_state = optax.tree_utils.tree_map_params(
        make_optimizer(optim), lambda _, sharding: sharding, shapes.opt_state, shardings,
        transform_non_params=lambda _: everywhere,
    )  # fmt: skip
    return TrainState(everywhere, shardings, opt_state, everywhere, everywhere)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every array in a batch [A, R, ...]: rows over the data-parallel devices."""
    return NamedSharding(mesh, P(None, DATA_AXES))


def local_rows(mesh: Mesh, rows: int) -> list[int]:
    """Returns which of a microbatch's `rows` rows this process's devices hold, ascending."""
    held = batch_sharding(mesh).addressable_devices_indices_map((1, rows)).values()
    return sorted({row for index in held if index is not None for row in range(*index[1].indices(rows))})


def put_batch(batch: Batch, mesh: Mesh, rows: int) -> Batch:
    """Puts microbatches of one shape on the devices.

    Of each microbatch of `rows` rows, `batch` holds those of `local_rows`, in order.
    """
    here = local_rows(mesh, rows)

    def put(x: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            span = range(*index[1].indices(rows))
            first = here.index(span.start)
            return x[:, first : first + len(span)]

        return jax.make_array_from_callback((x.shape[0], rows, *x.shape[2:]), batch_sharding(mesh), part)

    return jax.tree.map(put, batch)


def attention_of(model: DecoderConfig, compute: ComputeConfig, mesh: Mesh, shape: Shape, segments: int) -> Served:
    """Returns what serves the attention of microbatches of a shape, of which rows hold up to `segments` samples."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return served(compute.dtype, model.attention_softcap, (*shape, model.heads, model.head_dim), segments)


def model_logprobs(
    graphdef: nnx.GraphDef, params: tuple[nnx.State, ...], batch: Batch, compute: ComputeConfig, mesh: Mesh
) -> Float[Array, "R L"]:
    """Returns float32 log-probabilities of the batch's targets; the states in `params` make up the model together."""
    dtype = jnp.dtype(compute.dtype)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        model = nnx.merge(graphdef, *params)
        hidden_RLD = model(
            batch.ids_RL, batch.positions_RL, batch.segments_RL, dtype=dtype, remat=compute.remat,
            most_segments=batch.weights_RM.shape[-1],
        )  # fmt: skip
        head_DV = model.head_DV().astype(dtype)
        return token_logprobs(hidden_RLD, head_DV, batch.targets_RL, compute.logprob_chunk, model.logits)


def sequences_of(logprobs_RL: Float[Array, "R L"], batch: Batch) -> Sequences:
    """Returns a microbatch and its log-probabilities as a method's objective takes them."""
    return Sequences(
        logprobs_RL, batch.ref_logprobs_RL, batch.mask_RL, batch.segments_RL, batch.weights_RM, batch.present_RM
    )


def make_logprob_fn(
    model: DecoderConfig, splits: tuple[int, ...] | None, compute: ComputeConfig, mesh: Mesh
) -> Callable[[tuple[nnx.State, ...], Batch], Float[Array, "R L"]]:
    """Returns the jitted `model_logprobs` of a batch's first microbatch, without gradients.

    The result lies on every device.
    """
    graphdef = graph(model, splits)

    def logprobs(params: tuple[nnx.State, ...], batch: Batch) -> Float[Array, "R L"]:
        first = jax.tree.map(lambda x: x[0], batch)
        return model_logprobs(graphdef, params, first, compute, mesh)

    return jax.jit(products_of(compute.dtype)(logprobs), out_shardings=NamedSharding(mesh, P()))


def make_train_step(
    model: DecoderConfig, splits: tuple[int, ...] | None, cfg: TrainingConfig, steps: int, mesh: Mesh,
    shardings: TrainState,
) -> Callable[[TrainState, nnx.State, tuple[Batch, ...]], tuple[TrainState, Metrics]]:  # fmt: skip
    """Returns the jitted step `(state, frozen params, batches) -> (state, metrics)` of a run of `steps` steps.

    `state` is donated. Gradients and counts are summed over the microbatches in use, of one shape after another, and
    divided once, by the step's number of sequences. A step whose loss or gradient isn't finite changes nothing but the
    counters.
    """
    graphdef = graph(model, splits)
    optimizer, schedule = make_optimizer(cfg.optim), learning_rate(cfg.optim, steps)
    method = method_of(cfg.method)

    def loss(params: nnx.State, frozen: nnx.State, batch: Batch) -> tuple[Float[Array, ""], LossSums]:
        logprobs_RL = model_logprobs(graphdef, (params, frozen), batch, cfg.compute, mesh)
        sums = method.objective(sequences_of(logprobs_RL, batch), cfg.method)
        return sums.loss, sums

    def train_step(state: TrainState, frozen: nnx.State, batches: tuple[Batch, ...]) -> tuple[TrainState, Metrics]:
        def add_microbatch(batches: Batch, a, carry):
            grads, sums = carry
            batch = jax.tree.map(lambda x: x[a], batches)
            (_, more_sums), more_grads = jax.value_and_grad(loss, has_aux=True)(state.params, frozen, batch)
            more_grads = jax.lax.with_sharding_constraint(more_grads, shardings.params)
            # Without the barrier a compiler may add up whole gradients and scatter them once, after the loop.
            more_grads = jax.lax.optimization_barrier(more_grads)
            return jax.tree.map(jnp.add, grads, more_grads), sums + more_sums

        grads, sums = jax.tree.map(jnp.zeros_like, state.params), LossSums.zero()
        slots = jnp.zeros((), jnp.float32)
        only_one = sum(len(of_shape.ids_RL) for of_shape in batches) == 1
        for of_shape in batches:
            used = jnp.sum(jnp.any(of_shape.present_RM, axis=(1, 2)), dtype=jnp.int32)
            # The only microbatch is always in use: without a loop, no second array holds the sum of its gradients.
            turns = 1 if only_one else used
            grads, sums = jax.lax.fori_loop(0, turns, partial(add_microbatch, of_shape), (grads, sums))
            slots += used.astype(jnp.float32) * float(of_shape.ids_RL[0].size)
        grads = jax.tree.map(lambda g: g / sums.sequences, grads)

        grad_norm = optax.tree.norm(grads)
        rate = schedule(state.step)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        finite = jnp.isfinite(sums.loss) & jnp.isfinite(grad_norm)
        bad = (~finite).astype(jnp.int32)
        new = replace(state, params=params, opt_state=opt_state)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        state_after = replace(
            kept, step=state.step + 1, skipped=state.skipped + bad, skipped_in_row=(state.skipped_in_row + bad) * bad
        )
        metrics = {
            "loss": sums.loss / sums.sequences,
            "ratio_mean": sums.ratio / sums.sequences,
            "ratio_min": sums.ratio_min,
            "ratio_max": sums.ratio_max,
            "clip_fraction": sums.clipped / sums.sequences,
            "clamped_fraction": sums.clamped / sums.sequences,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "params_changed": _share_changed(state.params, kept.params),
            "sequences": sums.sequences,
            "tokens": sums.tokens,
            "fill": sums.tokens / slots,
            "skipped": state_after.skipped.astype(jnp.float32),
            "skipped_in_row": state_after.skipped_in_row.astype(jnp.float32),
        }
        return state_after, metrics

    exact_step = products_of(cfg.compute.dtype)(train_step)
    return jax.jit(exact_step, out_shardings=(shardings, NamedSharding(mesh, P())), donate_argnums=0)


def _share_changed(old: nnx.State, new: nnx.State) -> Float[Array, ""]:
    """Returns the share of the parameters whose bfloat16 value differs: what a bfloat16 export shows of a step."""
    changed = jax.tree.map(
        lambda a, b: jnp.sum(a.astype(jnp.bfloat16) != b.astype(jnp.bfloat16), dtype=jnp.float32), old, new
    )
    count = float(sum(p.size for p in jax.tree.leaves(old)))  # an int of billions would overflow int32
    return jnp.stack(jax.tree.leaves(changed)).sum() / count
