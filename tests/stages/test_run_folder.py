"""A run's folder: what may become one, and who owns it."""

import json
import os
from pathlib import Path

import pytest

from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime import claims
from o1p_jax.runtime.errors import BadInput, ProcessLost
from o1p_jax.stages.run_folder import kept_revision, open_run, owned


@pytest.mark.parametrize("names", [[], ["slurm-123.out"], ["slurm-1_2.err", "job.o77", "job.e77"], [".nfs01", "logs"]])
def test_a_folder_that_holds_only_logs_becomes_a_run(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert kept_revision(RunConfig(run=str(tmp_path), revision="main")) == "main"


def test_a_folder_of_somebody_elses_does_not(tmp_path):
    for name in ("slurm-123.out", "thesis.tex"):
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match=r"is not a run folder \(it holds thesis.tex\)"):
        kept_revision(RunConfig(run=str(tmp_path)))


def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for name, why in (("file/x", "Not a directory"), ("file", "Not a directory"), ("n" * 300, "File name too long")):
        with pytest.raises(BadInput, match=f"run=.*: {why}; name another folder"):
            kept_revision(RunConfig(run=str(tmp_path / name)))

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(BadInput, match="Permission denied; name another folder, or grant access"):
        kept_revision(RunConfig(run=str(tmp_path)))


def test_what_killed_processes_left_is_removed_when_a_run_is_opened(tmp_path):
    machine_and_more = "0123456789ab-1-1.abcdefgh"
    cfg = RunConfig(run=str(tmp_path / "run"), pool=str(tmp_path / "pool"))
    left = [Path(cfg.run) / f".{name}.{machine_and_more}" for name in ("model", "weights", "digest.txt")]
    left += [Path(cfg.run) / "reference" / f".part-00001.parquet.{machine_and_more}"]
    claim = tmp_path / "pool" / "samples" / ".part-00000.claim"
    for path in (*left, claim, claim.with_name("part-00000.parquet")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    run = open_run(cfg, None)
    assert not claim.exists() and all(path.exists() for path in left)  # another machine may be writing
    with owned(run):
        assert not any(path.exists() for path in left)


def test_an_owner_that_lost_the_run_is_told(tmp_path):
    with owned(tmp_path) as still_own:
        still_own()
        (tmp_path / f".owner{claims.CLAIM}").write_text(json.dumps({"host": "b", "process": 5}))
        with pytest.raises(ProcessLost, match="process 5 on b has taken it over"):
            still_own()
