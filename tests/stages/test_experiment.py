"""A small experiment: all that it writes, that it is done once, and that a kill changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import ROOT, environment, launch
from small_job import SMALL

from o1p_jax.evaluation.why import DIFFICULTY, REMOVED, SPENT
from o1p_jax.grading.passes import KINDS

MADE_AGAIN = ("seed-0/o1_pruner-m=4-lam=3*", "seed-0/validation/pools/o1*", "seed-0/test", "*.*")
"""What the killed experiment lacks when it is started, of a finished one's folder."""
FLAGS = [flag for flag in SMALL if not flag.startswith("--method")]
COMMAND = ["compare.py", "--methods", "o1_pruner:m=4,lam=2|3", "fast_prompt", "--steps=2", *FLAGS]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("experiment") / "out"
    finished = launch(*COMMAND, f"--out={out}")
    assert finished.returncode == 0, finished.stderr
    return out, finished.stdout


@pytest.mark.slow
def test_table_page_and_figures_hold_all_methods(done):
    out, printed = done
    rows = pq.read_table(out / "runs.parquet").to_pylist()
    of_test = {row["model"] for row in rows if row["part"] == "test" and row["level"] == "all" and row["seed"] is None}
    of_validation = {row["model"] for row in rows if row["part"] == "validation"}
    assert of_validation == {"base", "o1_pruner:m=4,lam=2", "o1_pruner:m=4,lam=3", "fast_prompt"}
    assert of_test < of_validation and len(of_test) == 3  # the base and a variant of each family
    chosen = json.loads((out / "chosen.json").read_text())["variants"]
    assert {label for label, of in chosen.items() if of["chosen"]} | {"base"} == of_test
    table, page = (out / "table.md").read_text(), (out / "report.html").read_text()
    for label in of_test:
        assert label in page and label in printed and label.replace("_", r"\_") in table
    assert "were sampled once" in table
    assert page.count("<figure>") == 7  # Pareto, sweep, bars; a report's three and its bars
    for title in (SPENT, REMOVED, DIFFICULTY):
        assert f"embedded:test: {title}" in table and f"embedded:test: {title}" in page
    for row in rows:
        assert sum(row[f"tokens_{kind}"] for kind in KINDS) == pytest.approx(row["tokens"])
        assert (row["tokens_repeated_change"] is None) == (row["model"] == "base")
    logs = [path.read_text().splitlines() for path in out.glob("seed-0/*/metrics.jsonl")]
    assert len(logs) == 2 and all(len(lines) == 2 for lines in logs)


@pytest.mark.slow
def test_runs_by_other_settings_are_not_taken_for_those_that_are_asked_for(done):
    refused = launch(*COMMAND, "--steps=3", f"--out={done[0]}")
    assert refused.returncode == 2 and "was trained there with optim.steps=2, not 3; name another" in refused.stderr


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_table(done, tmp_path):
    out, again = done[0], tmp_path / "again"
    shutil.copytree(out, again)
    for pattern in MADE_AGAIN:
        for path in again.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = [sys.executable, ROOT / "launch" / COMMAND[0], *COMMAND[1:], f"--out={again}"]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)  # fmt: skip
    while not list(again.glob("seed-0/o1*lam=3/metrics.jsonl")):
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    finished = launch(*COMMAND, f"--out={again}")
    assert finished.returncode == 0, finished.stderr
    for name in ("chosen.json", "runs.parquet"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    tables = [(folder / "table.md").read_text().splitlines() for folder in (out, again)]
    ours, theirs = ([line for line in lines if "were sampled once, first on" not in line] for lines in tables)
    assert ours == theirs and len(ours) == len(tables[0]) - 1  # but for the date
