"""SLURM's lists of nodes."""

import pytest

from o1p_jax.runtime import nodes
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.nodes import hostnames


@pytest.fixture(autouse=True)
def without_slurm(monkeypatch):
    monkeypatch.setattr(nodes.shutil, "which", lambda _: None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1 gpu2"),
        ("node[003-005,012]", "node003 node004 node005 node012"),
        ("node[1-2]-ib", "node1-ib node2-ib"),
        ("node[9-11]", "node9 node10 node11"),
        ("node[098-101]", "node098 node099 node100 node101"),
        ("rack[1-2]n[08-09].x,login", "rack1n08.x rack1n09.x rack2n08.x rack2n09.x login"),
        ("a[1,3]b,c[7,9-10]-x", "a1b a3b c7-x c9-x c10-x"),
    ],
)  # fmt: skip
def test_a_list_is_expanded(text, names):
    assert hostnames(text) == names.split()


@pytest.mark.parametrize("text", ["", "node[", "node[a-b]", "node[1-2", "node[]", "node]1["])
def test_a_list_that_cannot_be_read_is_refused(text):
    with pytest.raises(BadInput, match=r"SLURM_STEP_NODELIST=.*: can't be read; give --coordinator"):
        hostnames(text)


def test_slurms_own_command_is_believed_where_there_is_one(monkeypatch, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames odd{1}" ] && printf "odd-one\\nodd-two\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setattr(nodes.shutil, "which", lambda _: str(scontrol))
    assert hostnames("odd{1}") == ["odd-one", "odd-two"]
    assert hostnames("gpu[1-2]") == ["gpu1", "gpu2"]  # it failed
