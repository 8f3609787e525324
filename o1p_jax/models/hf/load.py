"""Hugging Face folders: found, read straight into each device's shards, and written back.

Only safetensors are read (the other formats run code when loaded), and no code that a model brings along is ever run.
"""

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.hub import _INDEX, _WEIGHTS
from o1p_jax.models.hf.names import HfTensor, Part, hf_tensors, ignored
from o1p_jax.models.hf.safetensors import DTYPES, StoredTensor, stored_tensors
from o1p_jax.runtime import progress
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_json


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
