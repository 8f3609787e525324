"""Hugging Face folders: found, read straight into each device's shards, and written back.

Only safetensors are read (the other formats run code when loaded), and no code that a model brings along is ever run.
"""

import os
import shutil
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from o1p_jax import progress
from o1p_jax.config import EMBEDDED
from o1p_jax.errors import BadInput, CorruptData
from o1p_jax.files import atomic_path, disk_errors, read_json, write_json
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.families import Entries, read_config
from o1p_jax.models.names import HfTensor, Part, hf_tensors, ignored, stack_lengths
from o1p_jax.models.stream import DTYPES, StoredTensor, TensorSpec, stored_tensors, write_safetensors

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_SHARD_BYTES = 5 * 10**9
_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a model's folder holds besides its weights; exported as it came."""


def resolve_model(path: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model: `embedded`, a folder, or a name on the Hugging Face hub (cached or fetched).

    Without `weights` only config.json is fetched.
    """
    if path == EMBEDDED:
        return Path(__file__).parent.parent / "embedded" / "model"
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.count("/") > 1 or path.startswith((".", "~", "/")) or folder.exists():
        raise BadInput(f"model={path}: no such folder")
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", _INDEX, *_COPIED] if weights else ["config.json"]
    try:
        return Path(snapshot_download(path, revision=revision, etag_timeout=5, allow_patterns=wanted))
    except Exception as e:  # the hub's client raises errors of several libraries
        raise BadInput(
            f"model={path}: neither a folder nor to be had from the Hugging Face hub "
            f"({type(e).__name__}); check the name, the network and HF_TOKEN"
        ) from e


def load_config(folder: Path) -> DecoderConfig:
    """The model's configuration; `BadInput` where it has no place in our decoder."""
    hf = read_json(folder / "config.json")
    if not isinstance(hf, dict):
        raise CorruptData(f"{folder / 'config.json'}: not a JSON object; restore the file")
    try:
        return read_config(hf)
    except BadInput as e:
        raise BadInput(f"{folder}: {e}") from None


class _Checkpoint:
    """The tensors in a folder's safetensors files, by name."""

    def __init__(self, folder: Path):
        self.tensors: dict[str, StoredTensor] = {}
        self.problems: list[str] = []
        for path in _weight_files(folder):
            found = stored_tensors(path)
            self.problems += [f"{name} stands in several files" for name in found.keys() & self.tensors.keys()]
            self.tensors |= found

    def check(self, expected: list[HfTensor], cfg: DecoderConfig, folder: Path) -> None:
        """Raises one `BadInput` for all missing, unknown, duplicate and misshapen tensors."""
        shapes = {t.name: t.shape for t in expected}
        self.problems += [f"{name} is missing" for name in shapes.keys() - self.tensors.keys()]
        self.problems += [
            f"{name} is unknown" for name in self.tensors.keys() - shapes.keys() if not ignored(name, cfg)
        ]
        for name in shapes.keys() & self.tensors.keys():
            shape, dtype = self.tensors[name].shape, self.tensors[name].dtype
            if shape != shapes[name]:
                self.problems.append(f"{name} has the shape {shape} instead of {shapes[name]}")
            if dtype not in DTYPES:
                self.problems.append(f"{name} has the type {dtype} instead of one of {', '.join(DTYPES)}")
        if self.problems:
            shown = sorted(self.problems)[:8]
            more = f"; and {len(self.problems) - 8} more" if len(self.problems) > 8 else ""
            raise BadInput(f"{folder}: weights do not fit config.json: {'; '.join(shown)}{more}")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).exists():
        index = read_json(folder / _INDEX)
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if (
            not isinstance(weight_map, dict)
            or not weight_map
            or not all(isinstance(n, str) for n in weight_map.values())
        ):
            raise CorruptData(f"{folder / _INDEX}: has no weight_map from tensors to files; fetch it again")
        names = sorted(set(weight_map.values()))
        if strange := [n for n in names if Path(n).name != n]:
            raise BadInput(
                f"{folder / _INDEX}: the file name {strange[0]!r} leads out of the folder; "
                "use a model from a source you trust"
            )
    elif (folder / _WEIGHTS).exists():
        names = [_WEIGHTS]
    elif others := [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]:
        raise BadInput(
            f"{folder}: its weights ({others[0]}) are not safetensors, and loading others can run code; "
            "convert them with transformers' save_pretrained"
        )
    else:
        raise BadInput(f"{folder}: no {_WEIGHTS} and no {_INDEX}")
    if missing := [n for n in names if not (folder / n).is_file()]:
        raise BadInput(f"{folder / missing[0]}: no such file, though {_INDEX} names it; fetch it again")
    return [folder / n for n in names]


def check_weights(folder: Path, cfg: DecoderConfig) -> None:
    """Raises what `load_params` would, from the files' headers alone."""
    _Checkpoint(folder).check(hf_tensors(cfg), cfg, folder)


def load_params(
    folder: Path,
    cfg: DecoderConfig,
    mesh: Mesh,
    *,
    dtype: DTypeLike = jnp.float32,
    splits: tuple[int, ...] | None = None,
    shardings: nnx.State | None = None,
) -> nnx.State:
    """The weights, each device reading only its own part; `shardings` are those of `param_shardings` if left out.

    Raises `BadInput` once for all tensors that are missing, unknown, duplicate or of a wrong shape, `CorruptData` for a
    damaged file.
    """
    placed = dict(nnx.to_flat_state(shardings if shardings is not None else param_shardings(cfg, mesh, splits)))
    by_path: dict[tuple, list[Part]] = defaultdict(list)
    tensors = hf_tensors(cfg, splits)
    for tensor in tensors:
        for part in tensor.parts:
            by_path[part.path].append(part)
    checkpoint = _Checkpoint(folder)
    checkpoint.check(tensors, cfg, folder)
    with progress.track("load model", total=len(by_path), unit="weights") as bar:

        def load(parts: list[Part], sharding: jax.sharding.Sharding) -> jax.Array:
            leading = [max(along) + 1 for along in zip(*(part.at for part in parts), strict=True)]
            shape = (*leading, *parts[0].shape)
            devices: dict[str, list[jax.Device]] = defaultdict(list)
            indices = sharding.addressable_devices_indices_map(shape)
            for device, index in indices.items():
                devices[str(index)].append(device)
            shards: dict[jax.Device, jax.Array] = {}
            for replicas in devices.values():  # one part at a time, read once for all devices that hold it
                index = indices[replicas[0]]
                assert index is not None
                spans = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
                found = np.empty([len(span) for span in spans], dtype)
                for part in parts:
                    if all(i in span for i, span in zip(part.at, spans, strict=False)):
                        here = tuple(i - span.start for i, span in zip(part.at, spans, strict=False))
                        found[here] = part.from_hf(checkpoint.tensors[part.tensor].read, index[len(leading) :])
                shards |= {device: jax.device_put(found, device) for device in replicas}
                jax.block_until_ready([shards[device] for device in replicas])
            return jax.make_array_from_single_device_arrays(shape, sharding, [shards[device] for device in indices])

        loaded = {}
        for path, parts in by_path.items():
            loaded[path] = placed[path].replace(load(parts, placed[path].get_value()))
            bar.advance()
    return nnx.from_flat_state(loaded)


def export_params(
    state: nnx.State, cfg: DecoderConfig, out: Path | None, *, source: Path | None = None, config: Entries | None = None
) -> None:
    """Writes weights, configuration and tokenizer into the folder `out`, for transformers and vLLM to load.

    Names and types of the tensors, and all other files, are those of `source`; a model without one has `config` as its
    config.json and keeps its types. An import that was not trained on is exported with the same bytes.

    In a job of several processes one writes; the others, with None as `out`, hand their devices' parts over.
    """
    if (source is None) == (config is None):
        raise ValueError("source or config: give one of them")
    weights = {path: weight.get_value() for path, weight in nnx.to_flat_state(state)}
    tensors = hf_tensors(cfg, stack_lengths(state))
    dtypes = {t.name: np.dtype(weights[t.parts[0].path].dtype) for t in tensors}
    if source is not None:
        checkpoint = _Checkpoint(source)
        checkpoint.check(tensors, cfg, source)
        dtypes = {t.name: np.dtype(DTYPES[checkpoint.tensors[t.name].dtype]) for t in tensors}
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            for name in _COPIED if source is not None else ():
                if source is not None and (source / name).is_file():
                    shutil.copyfile(source / name, out / name)
        if config is not None:
            write_json(out / "config.json", config | {"torch_dtype": str(dtypes[tensors[0].name])})

    specs = {t.name: TensorSpec(t.shape, dtypes[t.name]) for t in tensors}
    by_name = {t.name: t for t in tensors}
    shards = _plan_shards(specs)
    with progress.track("export model", total=len(tensors), unit="tensors") as bar:

        def make(name: str) -> np.ndarray:
            bar.advance()
            return by_name[name].gather(weights, dtypes[name])

        weight_map: dict[str, str] = {}
        for i, shard in enumerate(shards):
            file = _WEIGHTS if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
            with nullcontext(Path(os.devnull)) if out is None else atomic_path(out / file) as path:
                write_safetensors(path, {name: specs[name] for name in shard}, make)
            weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1 and out is not None:
        total = sum(spec.nbytes for spec in specs.values())
        write_json(out / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _plan_shards(specs: dict[str, TensorSpec]) -> list[list[str]]:
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
