import json
from types import SimpleNamespace

import pytest

from o1p_jax.commands.plan import command
from o1p_jax.planning import sweep
from o1p_jax.runtime.errors import BadInput

POD = "--topology=v5p:4x4x4"


@pytest.mark.parametrize("flag", ["--mesh=8x1", "--compute.remat=full"])
def test_a_sweep_refuses_what_it_chooses_itself(flag):
    with pytest.raises(BadInput, match=f"^{flag.split('=')[0]}: is what --sweep chooses"):
        command([POD, "--sweep", *flag.split("=")])


def test_a_sweep_heeds_the_other_flags(tmp_path, monkeypatch, capsys):
    told = {}

    def swept(cfg, pod, **job):
        told.update(job, row_length=cfg.batch.row_length)
        return [
            SimpleNamespace(
                mesh={"fsdp": 64}, tokens=64, chips=64, remat="full", fill=0.9,
                memory=SimpleNamespace(peak=2**30, fits=True),
                estimate=SimpleNamespace(forecast=1.0, mfu=0.4, most_mfu=0.5),
                job=SimpleNamespace(hours=1.5, dollars=12_345.0), as_dict=lambda: {"mesh": "fsdp:64"},
            )
        ]  # fmt: skip

    monkeypatch.setattr(sweep, "sweep", swept)
    out = tmp_path / "plans.json"
    flags = ["--price=2", "--problems_count=70", "--solution_tokens=900", "--batch.row_length=512"]
    command([POD, "--sweep", f"--json={out}", *flags])
    assert told == {"price": 2.0, "problems": 70, "solution_tokens": 900, "row_length": 512}
    assert json.loads(out.read_text()) == [{"mesh": "fsdp:64"}]
    assert "12,345" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--topology: missing"),
        ([POD, "--price=nan"], "--price=nan: must be a positive number"),
        ([POD, "--problems_count=0"], "--problems_count=0: must be a positive number"),
    ],
)
def test_mistakes_are_named(flags, message):
    with pytest.raises(BadInput, match=message):
        command(flags)
