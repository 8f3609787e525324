import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_models import CASES, save, torch_model
from transformers import AutoModelForCausalLM

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import init_params
from o1p_jax.models.families import read_config
from o1p_jax.models.hf import load as hf
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.models.hf.load import check_weights, load_params
from o1p_jax.runtime.errors import BadInput, CorruptData, DiskError
from o1p_jax.stages import cli


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {name: a for file in sorted(folder.glob("*.safetensors")) for name, a in load_file(file).items()}


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
    for name, weight in torch_model(case).to(dtype).state_dict().items():
        assert torch.equal(theirs.to(dtype).state_dict()[name], weight)


def test_shards_and_their_index(tmp_path, monkeypatch):
    source, out = save("qwen3_head_dim", tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(hf, "_MAX_SHARD_BYTES", 100_000)
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


def test_each_device_reads_its_own_part(tmp_path):
    source = save("llama", tmp_path)
    cfg = load_config(source)
    params = load_params(source, cfg, make_mesh("4x2"), dtype=jnp.bfloat16)
    q = params["stacks"][0]["q"].get_value()
    assert q.dtype == jnp.bfloat16
    assert q.addressable_shards[0].data.shape == (3, 16, 2, 16)
    expected = torch_model("llama").model.layers[2].self_attn.q_proj.weight.detach().numpy()
    np.testing.assert_array_equal(np.asarray(q[2]).reshape(64, 64).T, expected.astype(jnp.bfloat16))


def change_tensors(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_all_misfits_are_told_at_once(tmp_path):
    source = save("qwen3_head_dim", tmp_path)

    def change(weights):
        del weights["model.norm.weight"]
        weights["model.extra.weight"] = np.zeros(3, np.float32)
        weights["lm_head.weight"] = np.zeros((96, 65), np.float32)
        weights["model.layers.0.mlp.up_proj.weight"] = np.zeros((88, 64), np.int8)

    change_tensors(source, change)
    for check in (check_weights, lambda folder, cfg: load_params(folder, cfg, make_mesh("1x1"))):
        with pytest.raises(BadInput) as error:
            check(source, load_config(source))
        message = str(error.value)
        assert "\n" not in message
        for part in (
            "model.norm.weight is missing",
            "model.extra.weight is unknown",
            "lm_head.weight has the shape (96, 65) instead of (96, 64)",
            "model.layers.0.mlp.up_proj.weight has the type I8",
        ):
            assert part in message


def test_a_tensor_in_two_files(tmp_path):
    source = save("llama", tmp_path)
    shutil.copy(source / "model.safetensors", source / "b.safetensors")
    (source / "model.safetensors").rename(source / "a.safetensors")
    index = {"weight_map": dict.fromkeys(tensors(source), "a.safetensors") | {"lm_head.weight": "b.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"lm_head\.weight stands in several files"):
        check_weights(source, load_config(source))


def test_old_buffers_and_a_tied_head_are_no_misfits(tmp_path):
    source = save("qwen2_tied", tmp_path)
    change_tensors(
        source,
        lambda w: w.update(
            {
                "lm_head.weight": w["model.embed_tokens.weight"],
                "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32),
            }
        ),
    )
    check_weights(source, load_config(source))


@pytest.mark.parametrize("damage", ["truncated", "garbled header", "empty"])
def test_a_damaged_file(damage, tmp_path):
    source = save("llama", tmp_path)
    file = source / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes({"truncated": data[:-100], "garbled header": b"\xff" * 64 + data[64:], "empty": b""}[damage])
    with pytest.raises(CorruptData, match=r"model\.safetensors: not a whole safetensors file"):
        check_weights(source, load_config(source))


def test_folders_without_usable_weights(tmp_path):
    source = save("llama", tmp_path)
    cfg = load_config(source)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin.*save_pretrained"):
        check_weights(source, cfg)
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(BadInput, match=r"no model\.safetensors"):
        check_weights(source, cfg)
    index = source / "model.safetensors.index.json"
    for name, message in (
        ("../evil.safetensors", "leads out of the folder"),
        ("/etc/passwd", "leads out"),
        ("gone.safetensors", r"gone\.safetensors: no such file"),
    ):
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        with pytest.raises(BadInput, match=message):
            check_weights(source, cfg)
    for broken in ("{}", "[]", "not json"):
        index.write_text(broken)
        with pytest.raises(CorruptData, match=r"index\.json"):
            check_weights(source, cfg)


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


def test_where_a_model_is_found(tmp_path):
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("embedded").name == "model"
    for missing in (f"{tmp_path}/none", "./none", "~/no/such/folder"):
        with pytest.raises(BadInput, match="no such folder"):
            resolve_model(missing)
    for name in ("nobody/no-such-model", "no such name"):  # offline in the tests
        with pytest.raises(BadInput, match=f"model={name}: neither a folder nor to be had from the Hugging Face hub"):
            resolve_model(name)


def edit_json(name: str, **changes):
    def damage(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def write(name: str, content: bytes | str):
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def edit_tensors(change):
    return lambda folder: change_tensors(folder, change)


def cut(name: str, keep: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def index_to(*files: str):
    return write("model.safetensors.index.json", json.dumps({"weight_map": {str(i): f for i, f in enumerate(files)}}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


MALFORMED = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config is no JSON": cut("config.json", 100),
    "config is a list": write("config.json", "[]"),
    "own code": edit_json("config.json", auto_map={"AutoModel": "evil.Model"}),
    "quantized": edit_json("config.json", quantization_config={"bits": 4}),
    "unknown type": edit_json("config.json", model_type="rwkv"),
    "unknown rope": edit_json("config.json", rope_scaling={"rope_type": "spiral"}),
    "no number": edit_json("config.json", hidden_size="many"),
    "fewer layers": edit_json("config.json", num_hidden_layers=2),
    "more layers": edit_json("config.json", num_hidden_layers=4),
    "other heads": edit_json("config.json", num_key_value_heads=4),
    "tied": edit_json("config.json", tie_word_embeddings=True, vocab_size=97),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "pickle": pickled,
    "missing tensor": edit_tensors(lambda w: w.pop("model.norm.weight")),
    "extra tensor": edit_tensors(lambda w: w.update(extra=np.zeros(1, np.float32))),
    "wrong shape": edit_tensors(lambda w: w.update({"model.norm.weight": np.zeros(63, np.float32)})),
    "whole numbers": edit_tensors(lambda w: w.update({"model.norm.weight": np.zeros(64, np.int32)})),
    "truncated": cut("model.safetensors", 100_000),
    "header only": cut("model.safetensors", 300),
    "empty": cut("model.safetensors", 0),
    "header of 2^60 bytes": write("model.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
    "missing shard": index_to("model.safetensors", "model-2.safetensors"),
    "shard outside": index_to("../../etc/passwd"),
    "absolute shard": index_to("/etc/passwd"),
    "index is no JSON": write("model.safetensors.index.json", "{"),
    "index maps to numbers": write("model.safetensors.index.json", '{"weight_map": {"a": 3}}'),
    "index maps nothing": write("model.safetensors.index.json", '{"weight_map": ["a"]}'),
}


@pytest.mark.parametrize("damage", MALFORMED)
def test_a_malformed_folder_is_one_line(damage, tmp_path, monkeypatch, capsys):
    folder = save("llama_linear", tmp_path / "in")
    MALFORMED[damage](folder)
    before = sorted(p for p in tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["check"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        cli.main(lambda argv: check_weights(folder, load_config(folder)))
    told = capsys.readouterr().err
    assert exit_.value.code in (2, 65)
    assert told.count("\n") == 1 and str(folder) in told and "internal error" not in told, told
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_a_flipped_bit_in_the_header_is_found_or_harmless(tmp_path):
    source = save("llama_linear", tmp_path)
    cfg, file = load_config(source), source / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    found = 0
    for bit in np.random.default_rng(0).integers(0, 8 * header, 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            check_weights(source, cfg)
        except (BadInput, CorruptData):
            found += 1
    assert found > 250  # spaces and the metadata may change unseen
