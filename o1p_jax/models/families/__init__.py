"""The families of models, a module each."""

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
"""Hugging Face's `model_type` -> family."""


def read_config(hf: Entries) -> DecoderConfig:
    """Returns the configuration that a config.json of transformers 4 or 5 describes.

    Raises `BadInput` for a family or a setting that the decoder can't express.
    """
    family = FAMILIES.get(hf.get("model_type") or "")
    if family is None:
        raise BadInput(
            f"config.json: model_type={hf.get('model_type')!r} is not supported; these are: {', '.join(FAMILIES)}"
        )
    return read(hf, family)
