"""config.json of a run: back as it was, or refused."""

import json

import pytest

from o1p_jax.config.saved import load_saved, save_config
from o1p_jax.config.tree import GradingConfig, RunConfig, SamplingConfig
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.runtime.errors import BadInput, CorruptData


def test_round_trip(tmp_path):
    cfg = RunConfig(
        pool="pools/one",
        sampling=SamplingConfig(servers=("http://a", "http://b"), seed=3),
        method=O1PrunerParams(lam=1.5, m=3),
        grading=GradingConfig(timeout_s=9),
    )
    save_config(tmp_path / "config.json", cfg, "c" * 40)
    assert load_saved(tmp_path / "config.json") == (cfg, "c" * 40)


def test_an_older_versions_file_and_a_changed_one_are_refused(tmp_path):
    path = tmp_path / "config.json"
    save_config(path, RunConfig(), None)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "format"}))
    with pytest.raises(BadInput, match="older version of this program; name another folder"):
        load_saved(path)
    path.write_text(json.dumps(values | {"optim": {"lerning_rate": 1}}))
    with pytest.raises(CorruptData, match=r"config\.json: optim\.lerning_rate: no such field"):
        load_saved(path)


@pytest.mark.parametrize("change", [{"batch": 5}, {"method": {"name": 5}}, {"mesh": 8}, {"sampling": []}])
def test_a_value_of_another_kind_is_damage(tmp_path, change):
    path = tmp_path / "config.json"
    save_config(path, RunConfig(), None)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptData, match=r"config.json: "):
        load_saved(path)


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", ""])
def test_json_of_another_kind_is_damage(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CorruptData, match=r"config.json: not "):
        load_saved(tmp_path / "config.json")
