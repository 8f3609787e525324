"""Weights are written from the devices into a Hugging Face folder, a tensor at a time."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from flax import nnx

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.families import Entries, read_config
from o1p_jax.models.hf.folder import INDEX, WEIGHTS, FolderTensors
from o1p_jax.models.hf.hub import COPIED
from o1p_jax.models.hf.names import hf_tensors, stack_lengths
from o1p_jax.models.hf.rounding import Rounding
from o1p_jax.models.hf.safetensors import DTYPES, StoredTensor, TensorSpec, write_safetensors
from o1p_jax.runtime import progress
from o1p_jax.runtime.files import atomic_path, disk_errors, read_json, write_json

_MAX_SHARD_BYTES = 5 * 10**9
"""The most bytes of tensors in a file."""


def export_params(
    state: nnx.State,
    cfg: DecoderConfig,
    out: Path | None,
    *,
    source: Path | None = None,
    config: Entries | None = None,
    dtype: str | None = None,
) -> Rounding:
    """Writes weights, configuration and tokenizer into the folder `out`, for transformers and vLLM to load.

    Names of the tensors, and all other files, are those of the folder `source`, and so are the tensors' types unless
    `dtype` names another; a model without a source has `config` as its config.json and keeps its types. Weights that
    were loaded and not trained are exported with the same bytes. Returns what the types leave of the changes to
    `source`.

    In a job of several processes one process writes; the others, with None as `out`, hand their devices' parts over.
    """
    if (source is None) == (config is None):
        raise ValueError("source or config: give one of them")
    weights = {path: weight.get_value() for path, weight in nnx.to_flat_state(state)}
    tensors = hf_tensors(cfg, stack_lengths(state))
    dtypes = {t.name: np.dtype(weights[t.parts[0].path].dtype) for t in tensors}
    before: dict[str, StoredTensor] = {}
    if source is not None:
        stored = FolderTensors(source)
        stored.check(tensors, cfg)
        before = stored.tensors
        dtypes = {t.name: np.dtype(dtype or DTYPES[before[t.name].dtype]) for t in tensors}
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            for name in COPIED if source is not None else ():
                if source is not None and (source / name).is_file():
                    shutil.copyfile(source / name, out / name)
        if config is not None:
            write_json(out / "config.json", config | {"torch_dtype": str(dtypes[tensors[0].name])})
        else:
            _adapt_config(out / "config.json", cfg, dtype)

    specs = {t.name: TensorSpec(t.shape, dtypes[t.name]) for t in tensors}
    by_name = {t.name: t for t in tensors}
    shards, rounding = _shards_of(specs), Rounding()
    with progress.track("export model", total=len(tensors), unit="tensors") as bar:

        def make(name: str) -> np.ndarray:
            bar.advance()
            trained = by_name[name].gather(weights, np.float32)
            exported = trained.astype(dtypes[name], copy=False)
            if out is not None and source is not None:
                rounding.add(before[name], trained, exported)
            return exported

        weight_map: dict[str, str] = {}
        for i, shard in enumerate(shards):
            file = WEIGHTS if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
            with nullcontext(Path(os.devnull)) if out is None else atomic_path(out / file) as path:
                write_safetensors(path, {name: specs[name] for name in shard}, make)
            weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1 and out is not None:
        total = sum(spec.nbytes for spec in specs.values())
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return rounding


def _adapt_config(path: Path, cfg: DecoderConfig, dtype: str | None) -> None:
    """Changes what a copied config.json says where the export is otherwise: other types, a head of its own."""
    hf = read_json(path)
    changes: Entries = {}
    if read_config(hf).tied != cfg.tied:
        changes["tie_word_embeddings"] = cfg.tied
        progress.say("export: config.json ties a head that has weights of its own; the export's says it is not tied")
    if dtype is not None:
        changes |= dict.fromkeys({"dtype", "torch_dtype"} & hf.keys() or {"torch_dtype"}, dtype)
    if changes:
        write_json(path, hf | changes)


def _shards_of(specs: dict[str, TensorSpec]) -> list[list[str]]:
    """Consecutive tensors in files of at most `_MAX_SHARD_BYTES`."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if shards[-1] and size + spec.nbytes > _MAX_SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.nbytes
    return shards
