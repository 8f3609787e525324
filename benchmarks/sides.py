"""The sides of run.py: `python -m benchmarks.sides PART SIDE` works once for each line on stdin, and tells its figures.

A side is a function that sets up and returns the work, which returns how many useful tokens it was for. The model has
the shape of SmolLM2-135M and random weights. Lengths are lognormal: mean 600, at most 2,048.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

Work = Callable[[], int]
MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "head_dim": 64, "tie_word_embeddings": True, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0, "hidden_act": "silu",
}  # fmt: skip
HEAD = {"tokens": 4096, "width": 576, "words": 152_064}
STEP_TOKENS = 2048
PROMPT = 64
SAMPLES = 32
"""Samples of a step of the recipe."""


def lengths() -> list[int]:
    """The tokens of each sample of a step, prompt included."""
    sigma = 0.7
    drawn = np.random.default_rng(0).lognormal(np.log(600) - sigma**2 / 2, sigma, SAMPLES)
    return np.clip(drawn, PROMPT + 16, 2048).astype(int).tolist()


def head_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    t, d, v = HEAD.values()
    hidden = rng.normal(size=(1, t, d)).astype(np.float32)
    return hidden, rng.normal(size=(d, v)).astype(np.float32) / 24, rng.integers(v, size=(1, t)).astype(np.int32)


class step:
    """A bare step on one row of 2,048 tokens: forward, backward, AdamW."""

    @staticmethod
    def ours() -> Work:
        return our_training([STEP_TOKENS], STEP_TOKENS, reference=False)

    @staticmethod
    def ours_full_remat() -> Work:
        return our_training([STEP_TOKENS], STEP_TOKENS, reference=False, remat="full")

    @staticmethod
    def pytorch() -> Work:
        import torch

        model, optimizer = torch_model()
        ids = torch.randint(0, MODEL["vocab_size"], (1, STEP_TOKENS))

        def work() -> int:
            logits = model(input_ids=ids).logits[:, :-1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[0, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return STEP_TOKENS

        return work


class recipe:
    """A step of O1-Pruner on samples of ragged lengths; useful tokens are those of the samples."""

    @staticmethod
    def ours() -> Work:
        """Packed rows; the reference's log-probabilities are computed in the same work, as the first epoch does."""
        return our_training(lengths(), 2048, reference=True)

    @staticmethod
    def ours_full_remat() -> Work:
        return our_training(lengths(), 2048, reference=True, remat="full")

    @staticmethod
    def authors_recipe_pytorch() -> Work:
        """As the authors' code trains: one padded pair of samples at a time, a frozen copy at each, full logits."""
        import torch

        model, optimizer = torch_model()
        frozen, _ = torch_model()
        ragged = lengths()
        pairs = [ragged[i : i + 2] for i in range(0, SAMPLES, 2)]

        def logprobs(of, ids, attention):
            logits = of(input_ids=ids, attention_mask=attention).logits[:, :-1]
            return logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]

        def work() -> int:
            for pair in pairs:
                ids = torch.randint(0, MODEL["vocab_size"], (2, max(pair)))
                attention = torch.tensor([[1] * n + [0] * (max(pair) - n) for n in pair])
                counted = attention[:, 1:].clone()
                counted[:, : PROMPT - 1] = 0
                ours = logprobs(model, ids, attention)
                with torch.no_grad():
                    theirs = logprobs(frozen, ids, attention)
                ratio = (((ours - theirs) * counted).sum(1) / counted.sum(1)).exp()
                weight = torch.tensor([1.0, -1.0])
                (-torch.minimum(ratio * weight, ratio.clamp(0.8, 1.2) * weight).sum() / SAMPLES).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return sum(ragged)

        return work


class head:
    """Log-probabilities of 4,096 tokens among 152,064 words, and their derivatives by hidden states and head."""

    @staticmethod
    def ours() -> Work:
        from o1p_jax.config.tree import ComputeConfig
        from o1p_jax.training.logprobs import token_logprobs

        return jax_head(lambda h, w, t: token_logprobs(h, w, t, ComputeConfig().logprob_chunk))

    @staticmethod
    def full_logits_jax() -> Work:
        import jax
        import jax.numpy as jnp

        def logprobs(hidden, words, targets):
            logprobs = jax.nn.log_softmax(jnp.einsum("bld,dv->blv", hidden, words))
            return jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]

        return jax_head(logprobs)

    @staticmethod
    def full_logits_pytorch() -> Work:
        import torch

        torch.set_num_threads(1)
        hidden, words, targets = map(torch.from_numpy, head_arrays())
        hidden.requires_grad_(), words.requires_grad_()

        def work() -> int:
            logprobs = (hidden @ words).log_softmax(-1).gather(-1, targets.long()[..., None])
            logprobs.sin().sum().backward()
            hidden.grad = words.grad = None
            return HEAD["tokens"]

        return work


def jax_head(logprobs: Callable) -> Work:
    import jax
    import jax.numpy as jnp

    arrays = head_arrays()
    step = jax.jit(jax.grad(lambda h, w, t: jnp.sum(jnp.sin(logprobs(h, w, t))), argnums=(0, 1)))
    compiled = step.lower(*arrays).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    print(f"temporaries {temporaries / 2**20:.0f} MiB", file=sys.stderr)

    def work() -> int:
        jax.block_until_ready(compiled(*arrays))
        return HEAD["tokens"]

    return work


def torch_model():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL, attn_implementation="sdpa", use_cache=False, dtype=torch.float32))
    return model, torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)


def our_training(of_samples: list[int], row_length: int, reference: bool, remat: str = "light") -> Work:
    import jax

    from o1p_jax.config.tree import BatchConfig, ComputeConfig, RunConfig
    from o1p_jax.data.records import TrainingSample
    from o1p_jax.devices.mesh import make_mesh
    from o1p_jax.models.decoder import init_params, param_shardings
    from o1p_jax.models.families import read_config
    from o1p_jax.training.memory import tokens_per_device
    from o1p_jax.training.packing import make_steps, step_iterator
    from o1p_jax.training.shapes import Room
    from o1p_jax.training.step import make_logprob_fn, make_train_step, put_batch, state_shardings, train_state

    batch = BatchConfig(sequences=len(of_samples), row_length=row_length, too_long="drop")
    compute = ComputeConfig(dtype="float32", remat=remat)
    cfg = RunConfig(batch=batch, compute=compute)
    mesh, model = make_mesh("1x1"), read_config(MODEL)
    rng = np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, model.vocab_size, n).tolist())

    samples = [
        TrainingSample(problem_id=str(i), sample_idx=0, prompt_ids=ids(PROMPT), completion_ids=ids(n - PROMPT),
                       weight=1.0 - 2 * (i % 2))
        for i, n in enumerate(of_samples)
    ]  # fmt: skip
    room = Room(devices=1, parts=1, tokens=tokens_per_device(None, model, compute, mesh), row_length=row_length)
    steps = make_steps(of_samples, batch, 1, 0, room)
    rows = [list(range(shape.rows)) for shape in steps.shapes]
    ref = [np.full(len(s.completion_ids), -10.8, np.float32) for s in samples]
    batches = tuple(
        put_batch(b, mesh, shape.rows)
        for b, shape in zip(next(step_iterator(samples, ref, steps, rows)), steps.shapes, strict=True)
    )
    print(f"{steps.text}; {steps.fill:.0%}", file=sys.stderr)
    params = init_params(model, jax.random.key(0), mesh)
    shardings = state_shardings(param_shardings(model, mesh), params, cfg.optim, mesh)
    state = jax.jit(lambda p: train_state(p, cfg.optim), out_shardings=shardings, donate_argnums=0)(params)
    train = make_train_step(model, None, cfg.training, 10, mesh, shardings)
    logprobs = make_logprob_fn(model, None, compute, mesh)
    none = type(params)({})

    def work() -> int:
        nonlocal state
        if reference:
            for of_shape, packed in zip(batches, steps.packed[0], strict=True):
                for a in range(len(packed)):
                    logprobs((state.params, none), jax.tree.map(lambda x, a=a: x[a : a + 1], of_shape))
        state, metrics = train(state, none, batches)
        jax.block_until_ready((state, metrics))
        return sum(of_samples)

    return work


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # XLA's threads would take more than one core
    part, side = sys.argv[1:]
    work = getattr(globals()[part], side)()
    work()
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.monotonic()
        tokens = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        told = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall, "tokens": tokens}
        print(json.dumps(told | {"peak_gib": peak}), flush=True)


if __name__ == "__main__":
    main()
