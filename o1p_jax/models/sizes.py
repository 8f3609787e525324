"""How many parameters a model has, and how many of them a token is multiplied with."""

import functools
import math
from dataclasses import dataclass

from flax import nnx

from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import abstract_params


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A model's numbers of parameters."""

    total: int
    multiplied: int
    """Parameters that a token is multiplied with: not the embedding's rows, nor the experts it does not go to."""
    experts: int
    """Parameters of all experts together."""


@functools.cache  # a sweep asks for the same model thousands of times
def model_sizes(model: DecoderConfig) -> Sizes:
    """Counts the parameters in the weights' declarations."""
    total = multiplied = experts = 0
    for path, weight in nnx.to_flat_state(abstract_params(model)):
        size = math.prod(weight.shape)
        total += size
        if path == ("embed",) and not model.tied:
            continue
        share = 1.0
        if model.experts is not None and "experts" in weight.get_metadata("logical_axes"):
            share = model.experts.per_token / model.experts.count
            experts += size
        multiplied += round(size * share)
    return Sizes(total=total, multiplied=multiplied, experts=experts)
