"""Makes the embedded model: a small Qwen3 that is taught from nothing to solve number machines at length."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from o1p_jax.config.tree import OptimConfig
from o1p_jax.data.embedded import machines
from o1p_jax.data.records import TrainingSample
from o1p_jax.models.decoder import graph, init_params
from o1p_jax.models.families import read_config
from o1p_jax.models.hf.export import export_params
from o1p_jax.runtime.files import atomic_folder, write_json
from o1p_jax.runtime.progress import track
from o1p_jax.training.logprobs import token_logprobs
from o1p_jax.training.optimizer import learning_rate, make_optimizer
from o1p_jax.training.packing import Batch, assemble
from o1p_jax.training.shapes import Shape, best_fit
from tools.make_embedded.tokenizer import train_tokenizer
from tools.make_embedded.traces import solution

# head_dim 32: the smallest that vLLM serves on a CPU; vocab_size above the tokenizer's 605, so that meshes divide it.
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 640,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-06,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
}
MODEL = read_config(CONFIG)


class Cycle(NamedTuple):
    """A warm restart (arXiv 1608.03983) on new samples."""

    steps: int
    peak: float
    """The peak of the cycle's learning rate."""
    check_again: float
    """See `solution`: the first cycles teach to solve, at four checks a solution; the last the habit, at six."""


CYCLES = (
    Cycle(4000, 2e-3, 0.85),
    Cycle(2500, 1.5e-3, 0.85),
    Cycle(2500, 1.5e-3, 0.85),
    Cycle(2500, 1.5e-3, 0.85),
    Cycle(2500, 1.5e-3, 0.93),
)
ROWS, ROW_LENGTH = 10, 384  # no machine's prompt and solution together are longer


def pretrain(out: Path, mesh: Mesh) -> None:
    """Trains tokenizer and model and writes them to `out` as a Hugging Face folder."""
    with atomic_folder(out) as folder:
        tokenizer = train_tokenizer(_texts(4000), folder)
        params = init_params(MODEL, jax.random.key(0), mesh)
        for seed, cycle in enumerate(CYCLES):
            batches = islice(_batches(tokenizer, seed, cycle.check_again), cycle.steps)
            params = _train(params, batches, cycle.steps, cycle.peak)
        export_params(params, MODEL, folder, config=CONFIG)
        write_json(folder / "generation_config.json", {
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        })  # fmt: skip


def _train(params: nnx.State, batches: Iterator[Batch], steps: int, peak: float) -> nnx.State:
    optim = OptimConfig(learning_rate=peak, warmup=0.03, b2=0.98, weight_decay=0.05, max_grad_norm=1.0)
    optimizer, schedule = make_optimizer(optim), learning_rate(optim, steps)
    graphdef = graph(MODEL)

    def loss(params: nnx.State, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, params)
        hidden_RLD = model(batch.ids_RL, batch.positions_RL, batch.segments_RL)
        logprobs_RL = token_logprobs(hidden_RLD, model.head_DV(), batch.targets_RL, ROW_LENGTH)
        return -jnp.sum(jnp.where(batch.mask_RL, logprobs_RL, 0.0)) / jnp.sum(batch.mask_RL, dtype=jnp.float32)

    @jax.jit
    def train_step(step, params, opt_state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return jax.tree.map(lambda p, u: p - schedule(step) * u, params, updates), opt_state, value

    opt_state: optax.OptState = optimizer.init(params)
    with track("pretrain", total=steps, unit="steps") as bar:
        for step, batch in enumerate(batches):
            params, opt_state, value = train_step(jnp.int32(step), params, opt_state, batch)
            bar.advance(note=f"loss {float(value):.4f} nats a learned token")
    return params


def _texts(count: int) -> Iterator[str]:
    rng = random.Random(0)
    for machine in islice(machines("pretraining", seed=0), count):
        yield machine.text
        yield "".join(piece.text for piece in solution(machine, rng, CYCLES[0].check_again))


def _samples(
    tokenizer: PreTrainedTokenizerFast, seed: int, check_again: float
) -> Iterator[tuple[TrainingSample, np.ndarray]]:
    """Yields samples of prompt and solution, and which of the solution's tokens the loss covers."""
    rng = random.Random(seed)
    for machine in machines("pretraining", seed):
        turns = [{"role": "user", "content": machine.text}]
        prompt = tokenizer.encode(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        pieces = [(tokenizer.encode(piece.text), piece.learned) for piece in solution(machine, rng, check_again)]
        pieces.append(([tokenizer.eos_token_id], True))
        completion = tuple(token for ids, _ in pieces for token in ids)
        learned = np.concatenate([np.full(len(ids), learned, np.float32) for ids, learned in pieces])
        yield (
            TrainingSample(
                problem_id="", sample_idx=0, prompt_ids=tuple(prompt), completion_ids=completion, weight=1.0
            ),
            learned,
        )


def _batches(tokenizer: PreTrainedTokenizerFast, seed: int, check_again: float) -> Iterator[Batch]:
    """Yields packed rows of as many samples as ROWS rows are sure to hold; `mask_RL` covers the learned tokens."""
    stream = _samples(tokenizer, seed, check_again)
    chosen: list[tuple[TrainingSample, np.ndarray]] = []
    for item in stream:
        chosen.append(item)
        lengths = [len(s.prompt_ids) + len(s.completion_ids) for s, _ in chosen]
        if sum(lengths) < 0.95 * ROWS * ROW_LENGTH:
            continue
        longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        rows, _ = best_fit(lengths, longest_first, [ROW_LENGTH] * ROWS)
        samples, learned = zip(*chosen, strict=True)
        # `assemble` aligns one number a completion token with its position: here, whether it is learned.
        batch = assemble(samples, learned, [rows], Shape(ROWS, ROW_LENGTH), count=1, segments=16)
        batch = Batch(*(x[0] for x in batch))
        yield batch._replace(mask_RL=batch.mask_RL & (batch.ref_logprobs_RL > 0))
        chosen = []
