"""The settings of the export."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from o1p_jax.runtime.fields import option


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How the trained model is written."""

    FLAG: ClassVar[str] = "export."

    dtype: Literal["float32", "bfloat16"] | None = option(None)
    """Type of the exported weights; left out: as the base model has them. bfloat16 rounds small changes away."""
