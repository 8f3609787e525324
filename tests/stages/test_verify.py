"""What `verify` finds in a run, a pool and a model folder, whole and damaged."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from drive_train import notes_of, tiny_config, tiny_model, tiny_samples
from made_pool import sample, write_pool

from o1p_jax.config.saved import save_config
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import sha256_file
from o1p_jax.runtime.sums import SUMS, write_sums
from o1p_jax.stages.export import export
from o1p_jax.stages.verify import parts_of_model, parts_of_pool, parts_of_run, verify
from o1p_jax.stages.weigh import read_report, weigh
from o1p_jax.training.checkpoint import facts_of
from o1p_jax.training.loop import train
from o1p_jax.training.samples import TrainingSet


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run, put together from its stages."""
    run = tmp_path_factory.mktemp("verify") / "run"
    source = find_model(str(tiny_model(run.parent / "model")))
    cfg = tiny_config(run)
    save_config(run / "config.json", cfg, None)
    rows = [sample(f"p{i}", k, 3 + i + k, bool(k)) for i in range(2) for k in range(4)]
    pool, grades = write_pool(run / "pool", rows[:4], rows[4:])
    weigh(pool, grades, replace(cfg.training, method=O1PrunerParams(m=4)), {}, run / "weights")
    samples = TrainingSet.of(tiny_samples(32))
    shutil.copytree(run / "pool", run / "evaluation" / "pools" / "before")
    mesh = make_mesh("1x1")
    folder = train(cfg.training, samples, source, mesh, run, notes=notes_of(cfg), reference_folder=pool.references)
    export(folder, run / "model", mesh, source)
    names = ("report.html", "report.json", "table.md")
    for name in names:
        (run / "evaluation" / name).write_text(name)
    write_sums(run / "evaluation", {name: sha256_file(run / "evaluation" / name) for name in names})
    return run


def found(run: Path, capsys) -> list[str]:
    """The lines that `verify` prints; the last one is its error, if it raises one."""
    capsys.readouterr()
    lines = []
    try:
        verify(parts_of_run(run))
    except CorruptData as e:
        lines = [str(e)]
    return capsys.readouterr().out.splitlines() + lines


def test_a_whole_run_has_a_line_for_each_part(whole, capsys):
    lines = found(whole, capsys)
    assert [line.split(":")[0] for line in lines] == [
        f"ok  {name}"
        for name in (
            "config.json", "pool/problems", "pool/samples", *_grades(whole, "pool"), "pool/reference", "weights",
            "checkpoints/00000003", "checkpoints/00000004", "digest.txt", "metrics.jsonl", "model",
            "evaluation/pools/before/problems", "evaluation/pools/before/samples",
            *_grades(whole, "evaluation/pools/before"), "evaluation",
        )
    ]  # fmt: skip
    assert "ok  pool/samples: 2 of 2 shards" in lines


def _grades(run: Path, pool: str) -> list[str]:
    return [f"{pool}/grades/{folder.name}" for folder in (run / pool / "grades").iterdir()]


VICTIMS = {
    "config.json": "config.json",
    "pool/samples/part-00001.parquet": "pool/samples",
    "pool/samples/_part-00001.sha256": "pool/samples",
    "pool/problems/_meta.json": "pool",
    "pool/pool.json": "pool",
    "pool/reference/part-*.parquet": "pool/reference",
    "weights/_report.json": "weights",
    "weights/part-00000.parquet": "weights",
    "checkpoints/00000003/facts.json": "checkpoints/00000003",
    "checkpoints/00000004/manifest.json": "checkpoints/00000004",
    "digest.txt": "digest.txt",
    "metrics.jsonl": "metrics.jsonl",
    "model/model.safetensors": "model",
    "model/config.json": "model",
    "model/README.md": "model",
    f"model/{SUMS}": "model",
    "evaluation/pools/before/samples/part-00000.parquet": "evaluation/pools/before/samples",
    "evaluation/report.html": "evaluation",
    f"evaluation/{SUMS}": "evaluation",
}
"""Damaged file -> the part whose line tells of it."""


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"3"])
def test_damage_is_found(whole, tmp_path, capsys, victim, damage):
    run = shutil.copytree(whole, tmp_path / "run")
    [path] = run.glob(victim)
    path.write_bytes(damage(path.read_bytes()))
    *lines, error = found(run, capsys)
    bad = [line for line in lines if not line.startswith("ok  ")]
    assert VICTIMS[victim] in {line.split(": ")[0].removeprefix("DAMAGED  ") for line in bad}
    assert f"{len(bad)} of {len(lines)} parts are damaged" in error and "\n" not in error


def test_a_lost_file_is_damage_for_its_readers_too(whole, tmp_path, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    checkpoint = run / "checkpoints" / "00000004"
    for lost, reader in ((run / "weights" / "_report.json", read_report), (checkpoint / "facts.json", facts_of)):
        lost.unlink()
        with pytest.raises(CorruptData, match=f"{lost.name}: .*; remove {lost.parent}"):
            reader(lost.parent)
    (run / "evaluation" / "report.json").unlink()
    assert len([line for line in found(run, capsys) if line.startswith("DAMAGED")]) == 3


@pytest.mark.parametrize("lost", [SUMS, "report.html", "report.json", "table.md"])
def test_any_lost_file_of_a_report_is_missed(whole, tmp_path, capsys, lost):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "evaluation" / lost).unlink()
    assert [line.split(": ")[0] for line in found(run, capsys) if line.startswith("DAMAGED")] == ["DAMAGED  evaluation"]


def test_what_was_never_finished_is_no_damage(whole, tmp_path, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    for name in ("pool/samples/part-00001.parquet", "pool/pool.json", "checkpoints/00000004/manifest.json"):
        (run / name).unlink()
    shutil.rmtree(run / "pool" / "grades")
    shutil.rmtree(run / "model")
    (run / "model" / ".unfinished.1").mkdir(parents=True)
    lines = found(run, capsys)
    assert all(line.startswith("ok  ") for line in lines)
    assert "ok  pool: a pool that was being made; the next start goes on" in lines


def test_a_foreign_model_has_no_checksums(whole, capsys):
    verify(parts_of_model(whole.parent / "model", "model"))
    assert "no checksums to compare with" in capsys.readouterr().out
    weights = whole.parent / "broken" / "model.safetensors"
    shutil.copytree(whole.parent / "model", weights.parent)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptData):
        parts_of_model(weights.parent, "model")


@pytest.mark.parametrize("parts", [parts_of_run, lambda p: parts_of_pool(p, "x"), lambda p: parts_of_model(p, "x")])
def test_where_nothing_is_the_path_is_named(tmp_path, parts):
    with pytest.raises(BadInput, match="nowhere"):
        parts(tmp_path / "nowhere")
