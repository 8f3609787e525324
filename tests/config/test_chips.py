import pytest

from o1p_jax.config.chips import CHIPS, Topology
from o1p_jax.runtime.errors import BadInput


def test_figures_of_chips():
    assert all(chip.memory > 1e10 and chip.flops > 1e14 for chip in CHIPS.values())


@pytest.mark.parametrize("text", ["v5p", "v5p:4x4", "h100:8", "v9:2x2", "v5e:0x4", "v5e:axb", ""])
def test_bad_topologies(text):
    with pytest.raises(BadInput, match="must be a chip and the shape of the pod, such as v5e:4x4"):
        Topology.parse(text)


def test_topologies():
    assert (str(Topology.parse("V5P:4x4x8")), Topology.parse("v5p:4x4x8").devices) == ("v5p:4x4x8", 128)
    assert (Topology.parse("7x:2x2x1").chips, Topology.parse("7x:2x2x1").devices) == (4, 8)
