"""A tiny model on a mesh, and a batch to train it on."""

import jax
import numpy as np
from drive_train import MODEL, tiny_samples

from o1p_jax.config.tree import BatchConfig, ComputeConfig, OptimConfig, RunConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import init_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.training.packing import Batch, Steps, assemble, make_steps
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.step import (
    TrainState,
    make_train_step,
    put_batch,
    state_shardings,
    train_state,
)
from o1p_jax.training.trainable import layer_splits, split_frozen

CONFIG = RunConfig(
    batch=BatchConfig(sequences=24, row_length=64, too_long="drop", rows_per_microbatch=8),
    compute=ComputeConfig(dtype="float32", logprob_chunk=16),
    optim=OptimConfig(learning_rate=1e-3, warmup=0.0),
    method=O1PrunerParams(epsilon=0.1),
)


TINY = read_config(MODEL | {"num_key_value_heads": 4})  # four, for the tensor axis of 2x4


SAMPLES = tiny_samples(24)


def steps_of(batch: BatchConfig) -> Steps:
    return make_steps(TrainingSet.of(SAMPLES).lengths, batch, 1, 0)


def one_batch(batch: BatchConfig, samples=SAMPLES) -> Batch:
    steps = steps_of(batch)
    rng = np.random.default_rng(1)
    references = [rng.normal(-4, 0.3, len(s.completion_ids)).astype(np.float32) for s in SAMPLES]
    return assemble(
        samples, references, steps.packed[0], steps.microbatches, steps.rows, steps.row_length, steps.segments
    )


class Trainer:
    """State, shardings and step of a random model on a mesh."""

    def __init__(self, mesh: str, cfg: RunConfig = CONFIG, model: DecoderConfig = TINY):
        self.mesh = make_mesh(mesh)
        self.splits = layer_splits(model.layers, cfg.compute.trainable_layers)
        weights = init_params(model, jax.random.key(0), self.mesh, self.splits)
        params, self.frozen = split_frozen(weights, self.splits)
        placed, _ = split_frozen(param_shardings(model, self.mesh, self.splits), self.splits)
        self.shardings = state_shardings(placed, params, cfg.optim, self.mesh)
        init = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=self.shardings)
        self.state: TrainState = init(params)
        self.step = make_train_step(model, self.splits, cfg.training, 10, self.mesh, self.shardings)

    def run(self, *batches: Batch) -> dict[str, float]:
        for batch in batches:
            placed = put_batch(batch, self.mesh, batch.ids_RL.shape[1])
            self.state, metrics = self.step(self.state, self.frozen, placed)
        return {name: float(value) for name, value in metrics.items()}
