"""Configurations as plain values: to and from dicts, as dotted names, and as a digest."""

import dataclasses
import hashlib
import json
from typing import Any

from o1p_jax.methods import params_of
from o1p_jax.methods.base import Params
from o1p_jax.runtime.errors import BadInput


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain dicts, ready for JSON."""
    return plain(dataclasses.asdict(config))


def from_dict(cls: type, values: dict[str, Any], prefix: str = "") -> Any:
    """The inverse of `to_dict`; an unknown key is refused by its dotted name.

    A method's parameters are of the class that their `name` says.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise BadInput(f"{prefix}{unknown[0]}: no such field in this version")
    built = {}
    for name, value in values.items():
        if isinstance(value, dict):
            part: Any = fields[name].default_factory
            if issubclass(part, Params):
                part, value = params_of(value)
            value = from_dict(part, value, f"{prefix}{name}.")
        built[name] = tuple(value) if isinstance(value, list) else value
    return cls(**built)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted field name -> value, in the tree's order."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[prefix + f.name] = value
    return flat


def plain(values: Any) -> Any:
    """The values as JSON keeps them: tuples become lists, and the keys of a dict text."""
    return json.loads(json.dumps(values))


def fingerprint(values: Any) -> str:
    """SHA-256 over the canonical JSON of `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
