"""A small training run as its own process: `python tests/drive_train.py RUN EVERY EPOCHS`; tests kill it.

The model is a random two-layer Qwen3, which `tiny_model` wrote beside the run folder.
"""

import os
import sys
from pathlib import Path

import numpy as np

from o1p_jax.config import BatchConfig, CheckpointConfig, ComputeConfig, MethodConfig, OptimConfig, RunConfig
from o1p_jax.records import TrainingSample

MODEL = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 48, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "tie_word_embeddings": True, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.2,
}  # fmt: skip


def tiny_model(folder: Path, **changes) -> Path:
    """Writes a random model folder, the same one each time."""
    import jax

    from o1p_jax.mesh import make_mesh
    from o1p_jax.models.decoder import init_params
    from o1p_jax.models.families import read_config
    from o1p_jax.models.hf import export_params

    cfg = read_config(MODEL | changes)
    export_params(init_params(cfg, jax.random.key(0), make_mesh("1x1")), cfg, folder, config=MODEL | changes)
    return folder


def tiny_samples(count: int, *, vocab: int = 48, longest: int = 24, seed: int = 0) -> list[TrainingSample]:
    """Random prompts and completions of ragged lengths, with weights of both signs."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocab, rng.integers(low, high)).tolist())

    return [
        TrainingSample(problem_id=f"p{i // 2}", sample_idx=i % 2, prompt_ids=ids(2, 8), completion_ids=ids(1, longest),
                       weight=float(rng.normal()))
        for i in range(count)
    ]  # fmt: skip


def tiny_config(run: Path, *, mesh: str = "8x1", every: int = 3, **parts) -> RunConfig:
    defaults = {
        "batch": BatchConfig(sequences=16, row_length=48, rows_per_microbatch=8),
        "compute": ComputeConfig(dtype="float32", logprob_chunk=16),
        "optim": OptimConfig(learning_rate=1e-3, epochs=2),
        "checkpoint": CheckpointConfig(every=every),
        "method": MethodConfig(epsilon=0.1),
    }
    return RunConfig(run=str(run), mesh=mesh, model=str(run.parent / "model"), **(defaults | parts))


def main() -> None:
    run, every, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.environ["JAX_PLATFORMS"] = "cpu"
    from o1p_jax.errors import O1pError
    from o1p_jax.mesh import make_mesh, simulate_devices

    cfg = tiny_config(run, every=every, optim=OptimConfig(learning_rate=1e-3, epochs=epochs))
    simulate_devices(cfg.mesh)
    from o1p_jax.train import train

    try:
        train(cfg, tiny_samples(160), Path(cfg.model), make_mesh(cfg.mesh), run)
    except O1pError as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None


if __name__ == "__main__":
    main()
