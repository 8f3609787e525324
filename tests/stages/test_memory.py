"""What can never fit is refused by a lower bound, and what may fit is not."""

import pytest

from o1p_jax.config.tree import ComputeConfig, RunConfig, SamplingConfig
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.memory import check_memory

MODEL = find_model("embedded").decoder


def test_the_default_fits():
    check_memory(RunConfig(), MODEL)


def test_slots_that_no_device_holds():
    compute = ComputeConfig(dtype="float32")
    cfg = RunConfig(sampling=SamplingConfig(slots=2**16), compute=compute)
    with pytest.raises(BadInput, match=r"^sampling\.slots=65536: takes at least \d+ GiB"):
        check_memory(cfg, MODEL)
