"""What would fail hours later, refused before anything is written."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from o1p_jax.config.tree import RunConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter
from o1p_jax.devices.axes import check_divides
from o1p_jax.grading.grader import Grader
from o1p_jax.methods import method_of
from o1p_jax.methods.own_reward import check_reward
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import check_weights
from o1p_jax.runtime.errors import BadInput


def mesh_sizes(cfg: RunConfig, model: DecoderConfig) -> dict[str, tuple[str, int]]:
    """What the mesh has to divide, for `mesh.check_divides`."""
    rows = {"batch.rows_per_microbatch": ("batch", cfg.batch.rows_per_microbatch)}
    return model.axis_sizes() | rows | {"batch.row_length": ("length", cfg.batch.row_length)}


def check_inputs(cfg: RunConfig, model: Path, parts: Iterable[str]) -> None:
    """Raises BadInput for what would fail later: model, mesh, problems ('train', 'test' in `parts`), prompts, sampler,
    the user's own reward and grader.

    `model` is the folder of cfg.model. Needs no device.
    """
    decoder = load_config(model)
    check_weights(model, decoder)
    check_divides(cfg.mesh, mesh_sizes(cfg, decoder))
    wanted = cfg.compute.trainable_layers
    if wanted is not None and wanted > decoder.layers:
        raise BadInput(f"compute.trainable_layers={wanted}: the model has {decoder.layers} layers")

    if "train" in parts:
        check_reward(method_of(cfg.method), cfg.method)
    with Grader(workers=1, timeout_s=cfg.grading.timeout_s, own=cfg.grading.grader) as grader:
        grader.check()

    prompter = Prompter(model, cfg.problems)
    for part in parts:
        spec, limit = getattr(cfg.problems, part), getattr(cfg.problems, f"limit_{part}")
        for problem in load_problems(spec, cfg.problems, limit):
            prompter.prompt_ids(problem)
    if cfg.sampling.sampler == "vllm" and cfg.sampling.vllm.python is None and not importlib.util.find_spec("vllm"):
        raise BadInput(
            "sampling.sampler=vllm: vLLM is not installed here; install it (docs/install.md), or name the "
            "interpreter that has it as sampling.vllm.python"
        )
