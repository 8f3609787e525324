import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save
from weight_files import change_tensors, tensors

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import check_weights, load_params
from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import BadInput, CorruptData


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
    assert load_config(source).tied
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
    "tied, cut off": lambda folder: (MALFORMED["tied"](folder), MALFORMED["truncated"](folder)),
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
        main(lambda argv: check_weights(folder, load_config(folder)))
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
