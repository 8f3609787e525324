"""A method turns graded samples into weights, and weights into an objective; it is one file and a line in `METHODS`."""

import difflib
from typing import Any

from o1p_jax.methods.acoer import ACOER
from o1p_jax.methods.alp import ALP
from o1p_jax.methods.base import Method, Params
from o1p_jax.methods.dast import DAST
from o1p_jax.methods.deep_compress import DeepCompress
from o1p_jax.methods.dler import DLER
from o1p_jax.methods.dot import DOT
from o1p_jax.methods.dpo_shortest import DPOShortest
from o1p_jax.methods.gdpo import GDPO
from o1p_jax.methods.gfpo import GFPO
from o1p_jax.methods.grpo_lambda import GRPOLambda
from o1p_jax.methods.grpo_lead import GRPOLead
from o1p_jax.methods.jet import JET
from o1p_jax.methods.kimi_k15 import KimiK15
from o1p_jax.methods.laser_d import LaserD
from o1p_jax.methods.luspo import LUSPO
from o1p_jax.methods.o1_pruner import O1Pruner
from o1p_jax.methods.sft_shortest import SFTShortest
from o1p_jax.methods.shorter_better import ShorterBetter
from o1p_jax.methods.think_prune import ThinkPrune
from o1p_jax.methods.tlmre import TLMRE
from o1p_jax.runtime.errors import BadInput

METHODS: dict[str, Method] = {
    "o1_pruner": O1Pruner(),
    "sft_shortest": SFTShortest(),
    "dpo_shortest": DPOShortest(),
    "dast": DAST(),
    "tlmre": TLMRE(),
    "kimi_k15": KimiK15(),
    "shorter_better": ShorterBetter(),
    "think_prune": ThinkPrune(),
    "dler": DLER(),
    "laser_d": LaserD(),
    "alp": ALP(),
    "grpo_lead": GRPOLead(),
    "jet": JET(),
    "grpo_lambda": GRPOLambda(),
    "deep_compress": DeepCompress(),
    "acoer": ACOER(),
    "gfpo": GFPO(),
    "gdpo": GDPO(),
    "luspo": LUSPO(),
    "dot": DOT(),
}


def find(name: str) -> Method:
    """Returns the method called `name`. Raises BadInput that gives the nearest names."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, cutoff=0.6) or list(METHODS)
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
