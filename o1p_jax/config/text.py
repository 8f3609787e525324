"""Configurations are turned into plain values: dicts (and back), dotted names, and a digest."""

import dataclasses
import hashlib
import json
from typing import Any

from o1p_jax.methods import params_of
from o1p_jax.methods.base import Params
from o1p_jax.runtime.errors import BadInput


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as plain dicts, ready for JSON."""
    return plain(dataclasses.asdict(config))


def from_dict(cls: type, values: dict[str, Any], prefix: str = "") -> Any:
    """Builds the `cls` that `to_dict` made `values` of. Raises BadInput that names an unknown key by its dotted name.

    The class of a method's parameters is found by the `name` among them.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise BadInput(f"{prefix}{unknown[0]}: no such field in this version")
    built = {}
    for name, value in values.items():
        part: Any = fields[name].default_factory
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            if not isinstance(value, dict):
                raise BadInput(f"{prefix}{name}: holds {value!r:.60} instead of fields of its own")
            if issubclass(part, Params):
                part, value = params_of(value)
            value = from_dict(part, value, f"{prefix}{name}.")
        built[name] = tuple(value) if isinstance(value, list) else value
    return cls(**built)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns dotted field name -> value of all fields of `config` and its parts, in the order of their definition."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[prefix + f.name] = value
    return flat


def plain(values: Any) -> Any:
    """Returns the values as JSON keeps them: tuples become lists, and the keys of a dict become text."""
    return json.loads(json.dumps(values))


def fingerprint(values: Any) -> str:
    """Returns the SHA-256, in hex, of the canonical JSON of `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
