import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from drive_train import notes_of, tiny_config, tiny_model, tiny_samples
from flax import nnx
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from o1p_jax.config.tree import ComputeConfig
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.sums import SUMS, damaged
from o1p_jax.stages.card import PROVENANCE, write_card
from o1p_jax.stages.export import export, is_exported, newest_checkpoint
from o1p_jax.stages.pipeline import export_run
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import train, trained_params
from o1p_jax.training.samples import TrainingSet


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of a two-layer model of which one layer was trained."""
    folder = tmp_path_factory.mktemp("export") / "run"
    source = tiny_model(folder.parent / "model")
    (source / "tokenizer_config.json").write_text('{"chat_template": "as it was"}')
    cfg = tiny_config(folder, compute=ComputeConfig(dtype="float32", logprob_chunk=16, trainable_layers=1))
    model = find_model(str(source))
    train(cfg.training, TrainingSet.of(tiny_samples(32)), model, make_mesh("1x1"), folder, notes=notes_of(cfg))
    return folder


def exported(run: Path, out: Path, mesh: str = "1x1", folder: Path | None = None, dtype: str | None = None) -> Path:
    folder = folder or newest_checkpoint(run)
    export(folder, out, make_mesh(mesh), find_model(str(run.parent / "model")), dtype)
    return out


def test_export_is_the_checkpoints_model(run, tmp_path):
    out = exported(run, tmp_path / "out", "4x2")
    source, mesh = run.parent / "model", make_mesh("1x1")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(name.startswith("model.layers.1.") for name in changed)
    trained, splits = trained_params(checkpoint.newest(run / "checkpoints"), find_model(str(source)), mesh)
    loaded = load_params(out, load_config(out), mesh, splits=splits)
    same = jax.tree.map(np.array_equal, *(nnx.to_pure_dict(state) for state in (trained, loaded)))
    assert jax.tree.all(same)
    assert (out / "tokenizer_config.json").read_text() == '{"chat_template": "as it was"}'
    assert (out / "config.json").read_text() == (source / "config.json").read_text()


def test_card_tells_base_data_method_and_table_and_nothing_of_the_machine(run, tmp_path):
    out = exported(run, tmp_path / "out")
    card = (out / "README.md").read_text()
    for said in (
        "Base model: `model`",
        "Training problems: `embedded:train`",
        "samples kept: 32",
        "`code` mode",
        "+ 2.0 · (A(y)",
        "1 + 0.1) · R)",
        "clipped to [-2.0, 4.0], z-scored",
        "| `method.ratio` | geometric |",
        "| `optim.learning_rate` | 0.001 |",
        "licence",
    ):
        assert said in card
    assert "Before and after" not in card
    for text in (card, (out / PROVENANCE).read_text()):
        assert str(tmp_path) not in text and str(run.parent) not in text and "O1P_API_KEY" not in text
    write_card(out, "| level | model |\n| --- | --- |\n| all | new |\n")
    card = (out / "README.md").read_text()
    assert "## Before and after\n\n| level | model |" in card and "3|ΔA| where accuracy did not fall and" in card
    write_card(out, "a table", as_printed=True)
    assert "AES is ΔL + 3|ΔA|, with ΔL" in (out / "README.md").read_text()


def test_what_rounding_leaves_of_the_training_is_told(run, tmp_path, capsys):
    out = exported(run, tmp_path / "out", dtype="bfloat16")
    source, trained = run.parent / "model", exported(run, tmp_path / "float32", dtype="float32")
    before, after, rounded = (load_file(folder / "model.safetensors") for folder in (source, trained, out))
    assert {a.dtype for a in after.values()} == {np.dtype("float32")}
    assert {str(a.dtype) for a in rounded.values()} == {"bfloat16"}
    of_training, of_export = (
        np.concatenate([(new[name].astype(np.float64) - before[name]).reshape(-1) for name in before])
        for new in (after, rounded)
    )
    cosine = of_training @ of_export / np.linalg.norm(of_training) / np.linalg.norm(of_export)
    found = json.loads((out / PROVENANCE).read_text())["rounding"]
    assert found["trained"] == np.mean(of_training != 0) and found["exported"] == np.mean(of_export != 0)
    assert 0.01 < found["cosine"] < 0.99 and found["cosine"] == pytest.approx(cosine)
    same = json.loads((trained / PROVENANCE).read_text())["rounding"]
    assert same["trained"] == same["exported"] and same["cosine"] == pytest.approx(1)
    told = capsys.readouterr().err
    assert f"the cosine of both changes is {cosine:.3f}; the rest is rounded away" in told
    assert "the cosine of both changes is 1.000\n" in told
    card = " ".join((out / "README.md").read_text().split())
    assert f"as exported, in bfloat16; the cosine of the exported change and the trained one is {cosine:.3f}." in card
    for folder, dtype in ((out, torch.bfloat16), (trained, torch.float32)):
        (folder / "tokenizer_config.json").unlink()
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype


def test_another_dtype_is_another_export(run, tmp_path):
    out = exported(run, tmp_path / "out")
    assert is_exported(newest_checkpoint(run), out) and not is_exported(newest_checkpoint(run), out, "bfloat16")


def test_an_export_is_made_once_and_again_for_another_checkpoint(run, tmp_path):
    out = exported(run, tmp_path / "out")
    weights = out / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    exported(run, out)
    assert weights.stat().st_mtime_ns == stamp
    older = checkpoint.steps(run / "checkpoints")[0]
    exported(run, out, folder=older)
    assert weights.stat().st_mtime_ns != stamp
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_source_is_never_written_to(run, tmp_path):
    first = exported(run, tmp_path / "first")
    cfg = tiny_config(tmp_path / "run2")
    model = find_model(str(first))
    train(cfg.training, TrainingSet.of(tiny_samples(32)), model, make_mesh("1x1"), Path(cfg.run), notes=notes_of(cfg))
    (tmp_path / "link").symlink_to("first")
    before = {file: file.read_bytes() for file in first.iterdir()}
    newest = newest_checkpoint(Path(cfg.run))
    for out in (first, tmp_path / "link", first / "new", tmp_path, newest / "new", tmp_path / "run2" / "checkpoints"):
        with pytest.raises(BadInput, match="which is only read; name another folder"):
            export(newest, out, make_mesh("1x1"), model)
    assert {file: file.read_bytes() for file in first.iterdir()} == before


def test_files_beside_an_export_stay(run, tmp_path):
    out = exported(run, tmp_path / "out", folder=checkpoint.steps(run / "checkpoints")[0])
    (out / "model.gguf").write_text("converted")
    exported(run, out)
    assert (out / "model.gguf").read_text() == "converted"
    assert damaged(out) == [] and not list(out.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_an_export_with_a_flipped_bit_is_not_read_again(run, tmp_path, name):
    out = exported(run, tmp_path / "out")
    find_model(str(out))
    data = bytearray((out / name).read_bytes())
    data[-9] ^= 1
    stamp = (out / name).stat().st_mtime_ns
    (out / name).write_bytes(data)
    os.utime(out / name, ns=(stamp, stamp))  # as a failing disk would
    with pytest.raises(CorruptData, match=f"{name}: is not as it was written.*exports a run's model/ again"):
        find_model(str(out))


def test_an_export_that_was_interrupted_or_lost_its_list_is_not_taken_for_one(run, tmp_path):
    out, newest = exported(run, tmp_path / "out"), newest_checkpoint(run)
    (out / "config.json").unlink()
    assert not is_exported(newest, out)
    exported(run, out)
    assert is_exported(newest, out)
    (out / SUMS).unlink()
    with pytest.raises(BadInput, match=f"{SUMS}: is missing.*export again"):
        is_exported(newest, out)


def test_a_strangers_folder_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="was not exported by this program"):
        exported(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_a_checkpoint_the_remedy_is_named(tmp_path):
    for step in (None, 1):
        with pytest.raises(BadInput, match="train first"):
            newest_checkpoint(tmp_path, step)
    assert not (tmp_path / "out").exists()


def test_a_step_that_is_not_there_is_told_with_those_that_are(run):
    there = [int(folder.name) for folder in checkpoint.steps(run / "checkpoints")]
    assert newest_checkpoint(run, there[0]) == checkpoint.steps(run / "checkpoints")[0]
    with pytest.raises(BadInput, match=f"^--step=1: .*; there are {', '.join(map(str, there))}$"):
        newest_checkpoint(run, 1)


def test_a_damaged_checkpoint_is_not_exported(run, tmp_path):
    damaged = shutil.copytree(checkpoint.newest(run / "checkpoints"), tmp_path / "00000004")
    victim = max((f for f in damaged.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CorruptData, match="damaged"):
        exported(run, tmp_path / "out", folder=damaged)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_is_the_users_mistake_and_named_once(tmp_path):
    with pytest.raises(BadInput) as told:
        export_run(tmp_path / "none", tmp_path / "out", None)
    assert str(told.value) == f"run={tmp_path / 'none'}: no run there (config.json is missing); name a run's folder"
