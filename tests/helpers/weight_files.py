"""The tensors of a model's folder, read and changed by the safetensors library."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {name: a for file in sorted(folder.glob("*.safetensors")) for name, a in load_file(file).items()}


def change_tensors(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
