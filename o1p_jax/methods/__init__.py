"""A method turns graded samples into weights, and weights into an objective; it is one file and a line in `METHODS`."""

import difflib
from typing import Any

from o1p_jax.methods.base import Method, Params
from o1p_jax.methods.o1_pruner import O1Pruner
from o1p_jax.runtime.errors import BadInput

METHODS: dict[str, Method] = {
    "o1_pruner": O1Pruner(),
}


def find(name: str) -> Method:
    """Returns the method called `name`. Raises BadInput that gives the nearest names."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, cutoff=0.4) or list(METHODS)
        raise BadInput(f"method={name}: no such method; did you mean {' or '.join(near)}?")
    return METHODS[name]


def method_of(params: Params) -> Method:
    """Returns the method whose parameters `params` are."""
    return find(params.name)


def params_of(values: dict[str, Any]) -> tuple[type[Params], dict[str, Any]]:
    """Returns, for saved parameters, their class by the `name` among them, and the values that it is built from."""
    if "name" not in values:
        raise BadInput("method: saved without the method's name, by another version; name another run folder")
    return find(values["name"]).Params, {name: value for name, value in values.items() if name != "name"}
