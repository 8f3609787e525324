import pytest

from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.runtime.errors import BadInput, CorruptData


def test_config_files(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json: no such file"):
        load_config(tmp_path)
    for broken in ("[1]", "{"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(CorruptData, match=r"config\.json"):
            load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "auto_map": {}}')
    with pytest.raises(BadInput, match=f"{tmp_path}: config.json: auto_map"):
        load_config(tmp_path)


def test_where_a_model_is_found(tmp_path):
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("embedded").name == "model"
    for missing in (f"{tmp_path}/none", "./none", "~/no/such/folder"):
        with pytest.raises(BadInput, match="no such folder"):
            resolve_model(missing)
    for name in ("nobody/no-such-model", "no such name"):  # offline in the tests
        with pytest.raises(BadInput, match=f"model={name}: neither a folder nor to be had from the Hugging Face hub"):
            resolve_model(name)
