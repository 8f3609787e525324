"""A small training run and its export, as a process of its own or one of several; tests kill it.

    python tests/helpers/drive_train.py RUN EVERY EPOCHS [MESH] [--coordinator=... --processes=... --process=...]

The model is a random two-layer Qwen3, which `tiny_model` wrote beside the run folder.
"""

import os
from pathlib import Path
from unittest import mock

import numpy as np

from o1p_jax.config.text import flatten
from o1p_jax.config.tree import (
    BatchConfig,
    CheckpointConfig,
    ComputeConfig,
    OptimConfig,
    ProblemConfig,
    RunConfig,
    SamplingConfig,
)
from o1p_jax.data.records import TrainingSample
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.entry import main
from o1p_jax.runtime.place import find_place
from o1p_jax.runtime.supervisor import in_worker, supervise
from o1p_jax.training.samples import TrainingSet

MODEL = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 48, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "tie_word_embeddings": True, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.2,
}  # fmt: skip


def tiny_model(folder: Path, **changes) -> Path:
    """Writes a random model folder, the same one each time."""
    import jax

    from o1p_jax.devices.mesh import make_mesh
    from o1p_jax.models.decoder import init_params
    from o1p_jax.models.families import read_config
    from o1p_jax.models.hf.export import export_params

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
        "problems": ProblemConfig(max_prompt_tokens=16),
        "sampling": SamplingConfig(max_tokens=32),
        "batch": BatchConfig(sequences=16, row_length=48),
        "compute": ComputeConfig(dtype="float32", logprob_chunk=16),
        "optim": OptimConfig(learning_rate=1e-3, epochs=2),
        "checkpoint": CheckpointConfig(every=every),
        "method": O1PrunerParams(epsilon=0.1),
    }
    return RunConfig(run=str(run), mesh=mesh, model=str(run.parent / "model"), **(defaults | parts))


def notes_of(cfg: RunConfig) -> dict:
    """What the stage that trains leaves for the model card."""
    return {"model": cfg.model, "commit": None, "data": {"samples kept": 32}, "config": flatten(cfg)}


def keep_every_programs_compilation() -> None:
    """Lets every process add to the cache of compiled programs: JAX adds the first one's only; on CPUs they differ."""
    from jax._src import compiler

    write = compiler._cache_write

    def written(*args, **kwargs):
        with mock.patch.object(compiler.distributed.global_state, "process_id", 0):
            write(*args, **kwargs)

    compiler._cache_write = written


def command(argv: list[str]) -> None:
    place, (run, every, epochs, *mesh) = find_place(argv)
    if place and not in_worker():
        return supervise(place)
    os.environ["JAX_PLATFORMS"] = "cpu"
    from o1p_jax.devices import processes
    from o1p_jax.devices.mesh import make_mesh, set_up_devices

    processes.start(place)
    keep_every_programs_compilation()
    optim = OptimConfig(learning_rate=1e-3, epochs=int(epochs))
    cfg = tiny_config(Path(run), every=int(every), optim=optim, mesh=mesh[0] if mesh else "8x1")
    set_up_devices(cfg.mesh)
    from o1p_jax.models.source import find_model
    from o1p_jax.stages.export import export
    from o1p_jax.training.loop import train

    devices, source = make_mesh(cfg.mesh), find_model(cfg.model)
    samples = TrainingSet.of(tiny_samples(160))
    folder = train(cfg.training, samples, source, devices, Path(run), notes=notes_of(cfg))
    export(folder, Path(run) / "model", devices, source)


if __name__ == "__main__":
    main(command)
