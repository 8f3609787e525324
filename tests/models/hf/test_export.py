import copy
import json
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from tiny_models import CASES, save, torch_model
from transformers import AutoModelForCausalLM
from weight_files import change_tensors, tensors

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import graph, init_params
from o1p_jax.models.families import read_config
from o1p_jax.models.hf import export as module
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import check_config_tells_all, load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.runtime.errors import BadInput, DiskError


def assert_same_bytes(a: Path, b: Path) -> None:
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].shape == second[name].shape
        assert first[name].tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize(
    ("case", "dtype"), [(case, torch.float32) for case in CASES] + [("phi3", torch.bfloat16), ("llama", torch.float16)]
)
def test_import_then_export_has_the_same_bytes(case, dtype, tmp_path):
    source, out = save(case, tmp_path / "in", dtype), tmp_path / "out"
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        (source / name).write_text('{"name": "' + name + '"}')
    cfg = load_config(source)
    mesh = make_mesh("8x1" if cfg.kv_heads % 2 else "4x2")
    params = load_params(source, cfg, mesh, splits=(1, cfg.layers - 1))
    assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(params))
    export_params(params, cfg, out, source=source)
    assert_same_bytes(source, out)
    copied = {p.name for p in source.iterdir()} - {"model.safetensors"}
    assert copied == {p.name for p in out.iterdir()} - {"model.safetensors"}
    assert all((source / name).read_bytes() == (out / name).read_bytes() for name in copied)
    (out / "tokenizer.json").unlink()
    theirs, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, weight in copy.deepcopy(torch_model(case)).to(dtype).state_dict().items():  # the cached one stays
        assert torch.equal(theirs.to(dtype).state_dict()[name], weight)


def test_shards_and_their_index(tmp_path, monkeypatch):
    source, out = save("qwen3_head_dim", tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(module, "_MAX_SHARD_BYTES", 100_000)
    cfg, mesh = load_config(source), make_mesh("2x2")
    params = load_params(source, cfg, mesh)
    export_params(params, cfg, out, source=source)
    assert_same_bytes(source, out)
    shards = sorted(p.name for p in out.glob("*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert all((out / name).stat().st_size < 110_000 for name in shards)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in tensors(out).values())
    jax.tree.map(np.testing.assert_array_equal, load_params(out, cfg, mesh), params)
    theirs = AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name, weight in torch_model("qwen3_head_dim").state_dict().items():
        assert torch.equal(theirs[name], weight)


def test_a_model_without_a_source_loads_in_transformers(tmp_path):
    config = CASES["qwen3_tied_yarn"].to_dict()
    cfg = read_config(config)
    export_params(init_params(cfg, jax.random.key(0), make_mesh("2x2")), cfg, tmp_path, config=config)
    assert load_config(tmp_path) == cfg
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.float32 and model.lm_head.weight is model.model.embed_tokens.weight


def test_a_tied_model_with_a_head_of_its_own_keeps_both(tmp_path, capsys):
    """As transformers does; the export says so too, since other programs go by its config.json."""
    source, out = save("qwen2_tied", tmp_path / "in"), tmp_path / "out"
    head = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
    change_tensors(source, lambda w: w.update({"lm_head.weight": head}))
    cfg = load_config(source)
    assert not cfg.tied
    with pytest.raises(BadInput, match=r"config\.json: tie_word_embeddings: the weights hold a head of their own"):
        check_config_tells_all(source, cfg)
    params, ids = load_params(source, cfg, make_mesh("2x2")), np.arange(40, dtype=np.int32)[None]
    model = nnx.merge(graph(cfg), params)
    ours = model(jnp.asarray(ids), jnp.asarray(ids), jnp.ones(ids.shape, jnp.int32)) @ model.head_DV()
    export_params(params, cfg, out, source=source)
    assert_same_bytes(source, out)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    check_config_tells_all(out, cfg)
    assert load_config(out) == cfg and "export: config.json ties a head" in capsys.readouterr().err
    for folder in (source, out):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            expected = theirs(torch.tensor(ids).long()).logits.numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_full_disk(tmp_path):
    source, small = save("llama", tmp_path / "in"), tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        cfg = load_config(source)
        with pytest.raises(DiskError, match=r"out.*No space left on device; free or grant space"):
            export_params(load_params(source, cfg, make_mesh("1x1")), cfg, small / "out", source=source)
        assert {p.name for p in (small / "out").iterdir()} <= {"config.json", "generation_config.json"}
    finally:
        subprocess.run(["umount", small], check=True)
