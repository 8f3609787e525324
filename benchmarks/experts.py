"""A layer of experts, forward and backward, beside transformers' and beside `jax.lax.ragged_dot`.

    python benchmarks/experts.py --repeats=5

Tokens and weights are random, the routing uneven (weights of a Zipf law). Each repeat measures all three in turn; the
medians are printed with their ratios. `ragged_dot` is timed as JAX lowers it here; its memory is that of the
compiled program's temporaries.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from o1p_jax.models.experts import Experts, expert_mlp


@dataclass(frozen=True)
class Args:
    tokens: int = 2048
    experts: int = 32
    per_token: int = 4
    hidden: int = 512
    feed_forward: int = 192
    repeats: int = 5


def main(args: Args) -> None:
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, args.experts + 1)
    popularity /= popularity.sum()
    chosen = np.stack(
        [rng.choice(args.experts, args.per_token, replace=False, p=popularity) for _ in range(args.tokens)]
    ).astype(np.int32)
    x = rng.standard_normal((args.tokens, args.hidden), np.float32)
    gate, up = rng.standard_normal((2, args.experts, args.hidden, args.feed_forward), np.float32) / 20
    down = rng.standard_normal((args.experts, args.feed_forward, args.hidden), np.float32) / 20
    weights = np.full(chosen.shape, 1 / args.per_token, np.float32)

    def gated(gate: jax.Array, up: jax.Array) -> jax.Array:
        return jax.nn.silu(gate) * up

    def ours(x: jax.Array, experts: Experts) -> jax.Array:
        return jnp.sum(expert_mlp(x[None], jnp.asarray(weights)[None], jnp.asarray(chosen)[None], experts, gated) ** 2)

    def ragged(x: jax.Array, experts: Experts) -> jax.Array:
        order = jnp.argsort(jnp.asarray(chosen).reshape(-1))
        sizes = jnp.bincount(jnp.asarray(chosen).reshape(-1), length=args.experts)
        rows = x[order // args.per_token]
        h = gated(*(jax.lax.ragged_dot(rows, w, sizes) for w in (experts.gate_EDF, experts.up_EDF)))
        out = jax.lax.ragged_dot(h, experts.down_EFD, sizes) / args.per_token
        return jnp.sum(jnp.zeros_like(x).at[order // args.per_token].add(out) ** 2)

    def jitted(f: Callable) -> tuple[Callable[[], float], int]:
        inputs = (jnp.asarray(x), Experts(jnp.asarray(gate), jnp.asarray(up), jnp.asarray(down), None, None))
        compiled = jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(*inputs).compile()
        return lambda: float(jax.block_until_ready(compiled(*inputs))[0]), compiled.memory_analysis().temp_size_in_bytes

    config = Qwen3MoeConfig(
        hidden_size=args.hidden, moe_intermediate_size=args.feed_forward, num_experts=args.experts,
        num_experts_per_tok=args.per_token, experts_implementation="eager",
    )  # fmt: skip
    module = Qwen3MoeExperts(config)
    with torch.no_grad():
        module.gate_up_proj.copy_(torch.tensor(np.concatenate([gate, up], axis=2).swapaxes(1, 2)))
        module.down_proj.copy_(torch.tensor(down.swapaxes(1, 2)))
    torch_x, torch_chosen, torch_weights = torch.tensor(x), torch.tensor(chosen).long(), torch.tensor(weights)

    def theirs() -> float:
        module.zero_grad()
        inputs = torch_x.clone().requires_grad_()
        loss = (module(inputs, torch_chosen, torch_weights) ** 2).sum()
        loss.backward()
        return float(loss)

    (run_ours, ours_bytes), (run_ragged, ragged_bytes) = jitted(ours), jitted(ragged)
    runs = {"ours": run_ours, "transformers (eager)": theirs, "jax.lax.ragged_dot": run_ragged}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses = {name: run() for name, run in runs.items()}
    assert np.allclose(list(losses.values()), losses["ours"], rtol=1e-4), losses
    for _ in range(args.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["ours"])
    for name, measured in seconds.items():
        print(f"{name}: {statistics.median(measured):.3f} s, {statistics.median(measured) / base:.2f} x ours")
    print(f"temporaries: ours {ours_bytes / 2**20:.0f} MiB, jax.lax.ragged_dot {ragged_bytes / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Args))
