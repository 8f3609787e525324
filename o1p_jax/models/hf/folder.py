"""The tensors in a model folder's weight files, and whether they are those that its configuration asks for.

Only safetensors are read: the other formats run code when they are loaded.
"""

from pathlib import Path

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.families import FAMILIES
from o1p_jax.models.hf.names import HfTensor, ignored
from o1p_jax.models.hf.safetensors import DTYPES, StoredTensor, stored_tensors
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class FolderTensors:
    """The tensors in a folder's safetensors files, by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        self.problems: list[str] = []
        for path in weight_files(folder):
            found = stored_tensors(path)
            self.problems += [f"{name} stands in several files" for name in found.keys() & self.tensors.keys()]
            self.tensors |= found

    def has_own_head(self, cfg: DecoderConfig) -> bool:
        """Returns whether there is an output projection that is not the embedding."""
        head, embed = (self.tensors.get(FAMILIES[cfg.family].names[weight][0]) for weight in ("head", "embed"))
        return head is not None and embed is not None and not head.equals(embed)

    def check(self, expected: list[HfTensor], cfg: DecoderConfig) -> None:
        """Raises one `BadInput` for all tensors that are missing, unknown, duplicate or of a wrong shape or type."""
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
            raise BadInput(f"{self.folder}: weights do not fit config.json: {'; '.join(shown)}{more}")


def weight_files(folder: Path) -> list[Path]:
    """Returns the folder's safetensors files: those that its index names, or the only one.

    Raises `BadInput` where there are none, or where the index leads out of the folder; `CorruptData` for a broken
    index.
    """
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if (
            not isinstance(weight_map, dict)
            or not weight_map
            or not all(isinstance(n, str) for n in weight_map.values())
        ):
            raise CorruptData(f"{folder / INDEX}: has no weight_map from tensors to files; fetch it again")
        names = sorted(set(weight_map.values()))
        if strange := [n for n in names if Path(n).name != n]:
            raise BadInput(
                f"{folder / INDEX}: the file name {strange[0]!r} leads out of the folder; "
                "use a model from a source you trust"
            )
    elif (folder / WEIGHTS).exists():
        names = [WEIGHTS]
    elif others := [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]:
        raise BadInput(
            f"{folder}: its weights ({others[0]}) are not safetensors, and loading others can run code; "
            "convert them with transformers' save_pretrained"
        )
    else:
        raise BadInput(f"{folder}: no {WEIGHTS} and no {INDEX}")
    if missing := [n for n in names if not (folder / n).is_file()]:
        raise BadInput(f"{folder / missing[0]}: no such file, though {INDEX} names it; fetch it again")
    return [folder / n for n in names]
