"""A tiny model on a mesh, and a step's batches to train it on."""

import jax
import numpy as np
from drive_train import MODEL, tiny_samples

from o1p_jax.config.tree import BatchConfig, ComputeConfig, OptimConfig, RunConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import init_params, param_shardings
from o1p_jax.models.families import read_config
from o1p_jax.training.packing import Batch, assemble, most_segments
from o1p_jax.training.shapes import Packer, Shape
from o1p_jax.training.step import (
    TrainState,
    make_train_step,
    put_batch,
    state_shardings,
    train_state,
)
from o1p_jax.training.trainable import layer_splits, split_frozen

CONFIG = RunConfig(
    batch=BatchConfig(sequences=24, row_length=64, too_long="drop"),
    compute=ComputeConfig(dtype="float32", logprob_chunk=16),
    optim=OptimConfig(learning_rate=1e-3, warmup=0.0),
    method=O1PrunerParams(epsilon=0.1),
)


TINY = read_config(MODEL | {"num_key_value_heads": 4})  # four, for the tensor axis of 2x4


SAMPLES = tiny_samples(24)
SHAPE = Shape(8, 64)


def one_step(*shapes: Shape, samples=SAMPLES) -> tuple[Batch, ...]:
    """A step on all samples in microbatches of these shapes, for up to 8 devices; one shape if left out."""
    packer = Packer(shapes=shapes or (SHAPE,), devices=8, cost=0)
    packed = packer.pack([len(s.prompt_ids) + len(s.completion_ids) for s in samples])
    rng = np.random.default_rng(1)
    references = [rng.normal(-4, 0.3, len(s.completion_ids)).astype(np.float32) for s in SAMPLES]
    return tuple(
        assemble(samples, references, microbatches, shape, max(1, len(microbatches)), most_segments(microbatches))
        for shape, microbatches in zip(packer.shapes, packed, strict=True)
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

    def placed(self, batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
        return tuple(put_batch(batch, self.mesh, batch.ids_RL.shape[1]) for batch in batches)

    def run(self, *steps: tuple[Batch, ...]) -> dict[str, float]:
        for batches in steps:
            self.state, metrics = self.step(self.state, self.frozen, self.placed(batches))
        return {name: float(value) for name, value in metrics.items()}
