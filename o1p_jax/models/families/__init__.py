"""The families of models, a module each: `model_type` -> `Family`."""

import importlib
import pkgutil

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.families.common import Entries, Family, read
from o1p_jax.runtime.errors import BadInput

FAMILIES: dict[str, Family] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").FAMILY
    for module in pkgutil.iter_modules(__path__)
    if module.name != "common"
}


def read_config(hf: Entries) -> DecoderConfig:
    """Reads the content of a config.json of transformers 4 or 5; raises `BadInput` for what has no place here."""
    family = FAMILIES.get(hf.get("model_type") or "")
    if family is None:
        raise BadInput(
            f"config.json: model_type={hf.get('model_type')!r} is not supported; these are: {', '.join(FAMILIES)}"
        )
    return read(hf, family)
