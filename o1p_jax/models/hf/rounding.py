"""What the exported types leave of a training's changes: at small learning rates bfloat16 rounds most of them away."""

from typing import Any

import numpy as np

from o1p_jax.models.hf.safetensors import StoredTensor


class Rounding:
    """Compares the exported values with those before training, tensor by tensor, a few MiB at a time."""

    def __init__(self) -> None:
        self._values = self._trained = self._exported = 0
        self._product = self._trained_square = self._exported_square = 0.0

    def add(self, source: StoredTensor, trained: np.ndarray, exported: np.ndarray) -> None:
        """Counts a tensor in: `trained` is float32, `exported` the same in the exported type."""
        for rows in source.blocks:
            before = source.read(rows).astype(np.float32).astype(np.float64)
            of_training, of_export = trained[rows] - before, exported[rows] - before
            self._values += before.size
            self._trained += int(np.count_nonzero(of_training))
            self._exported += int(np.count_nonzero(of_export))
            self._product += float(np.vdot(of_training, of_export))
            self._trained_square += float(np.vdot(of_training, of_training))
            self._exported_square += float(np.vdot(of_export, of_export))

    @property
    def figures(self) -> dict[str, Any]:
        """The shares of all values that training and export changed, and the cosine of both changes.

        The cosine is None where one of them changed nothing.
        """
        scale = float(np.sqrt(self._trained_square) * np.sqrt(self._exported_square))
        return {
            "trained": self._trained / self._values,
            "exported": self._exported / self._values,
            "cosine": self._product / scale if scale else None,
        }
