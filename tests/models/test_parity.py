import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from core_cases import some_core
from tiny_models import save

import o1p_jax
from o1p_jax.commands import check_parity
from o1p_jax.models import parity
from o1p_jax.models.families import read_config
from o1p_jax.runtime.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "case", some_core(["llama_dynamic", "phi3_longrope", "olmo3_yarn", "gemma2", "gpt_oss"], ["phi3_longrope"])
)
def test_equal_far_beyond_the_original_context(case, tmp_path):
    found = o1p_jax.check_parity(str(save(case, tmp_path)))
    assert found.equal, found.verdict
    assert "equals transformers" in found.verdict
    assert all(row.top1 == 1 and abs(row.kl) < 1e-6 for row in found.rows)
    assert [row.span for row in found.rows] == {"gemma2": [256, 512], "llama_dynamic": [64, 256]}.get(
        case, [64, 256, 512]
    )


@pytest.mark.core
def test_a_model_that_keeps_no_cache_is_compared_as_one_text(tmp_path):
    """Without a cache or a mask transformers takes positions that lie apart for those of several packed texts."""
    folder = save("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"use_cache": False}
    (folder / "config.json").write_text(json.dumps(config))
    found = o1p_jax.check_parity(str(folder))
    assert found.equal and [row.span for row in found.rows] == [256, 512], found.verdict


@pytest.mark.core
def test_an_ignored_rescaling_shows(tmp_path, monkeypatch):
    folder = save("qwen2_yarn", tmp_path)
    wrong = json.loads((folder / "config.json").read_text())
    wrong["rope_parameters"] = dict(rope_type="default", rope_theta=1e4)
    monkeypatch.setattr(parity, "load_config", lambda folder: read_config(wrong))
    monkeypatch.setattr(parity, "spans", lambda cfg: [16, 256])
    found = o1p_jax.check_parity(str(folder))
    assert not found.equal and "DOES NOT EQUAL" in found.verdict


@pytest.mark.core
def test_the_figures():
    theirs = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.6, 0.3]]], np.float32))
    ours = theirs + np.array([[[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]], np.float32)
    row = parity.compare(7, ours, theirs)
    p, q = np.exp(theirs[0, 1]), np.exp(ours[0, 1]) / np.exp(ours[0, 1]).sum()
    assert row.kl == pytest.approx((p * np.log(p / q)).sum() / 2, rel=1e-5)
    assert (row.span, row.difference, row.top1, row.equal) == (7, 2.0, 0.5, False)
    assert not row._replace(usual=0.0, difference=np.inf).equal and row._replace(usual=0.0).equal
    assert parity.compare(7, np.full_like(ours, np.nan), theirs).difference == np.inf


def test_command_line(tmp_path, capsys):
    check_parity.command([f"--model={save('llama', tmp_path)}"])
    said = capsys.readouterr().out
    assert "positions 0 to 511" in said and "equals transformers" in said.splitlines()[-1]
    command = [sys.executable, ROOT / "launch" / "check_parity.py", f"--model={tmp_path / 'none'}"]
    missing = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1


def test_no_such_model():
    with pytest.raises(BadInput, match="no such folder"):
        o1p_jax.check_parity("./none")
