"""A small experiment: all that it writes, that it is done once, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import ROOT, environment, launch
from small_job import SMALL

FLAGS = [flag for flag in SMALL if not flag.startswith(("--method", "--batch.row_length"))]
METHODS = ["o1_pruner:m=4", "dler:m=4,limit=100|120", "dpo_shortest", "fast_prompt"]
COMMAND = [
    "compare.py",
    "--methods",
    *METHODS,
    "--steps=2",
    "--batch.row_length=512",
    *FLAGS,
    "--problems.limit_train=16",
]


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
    assert of_validation - of_test and len(of_test) == 5  # base, a variant of each family
    assert of_validation == {"base", "o1_pruner:m=4", "dler:m=4,limit=100", "dler:m=4,limit=120", "dpo_shortest",
                             "fast_prompt"}  # fmt: skip
    chosen = json.loads((out / "chosen.json").read_text())["variants"]
    assert {label for label, of in chosen.items() if of["chosen"]} | {"base"} == of_test
    table, page = (out / "table.md").read_text(), (out / "report.html").read_text()
    for label in of_test:
        assert label in page and label in printed and label.replace("_", r"\_") in table
    assert (
        "sampled once" in table and "dler:m=4,limit limit=120" in page
    )  # in the plot of the sweep, as text for people
    assert all(int(row["step"]) <= 2 for run in out.glob("seed-0/*/metrics.jsonl")
               for row in map(json.loads, run.read_text().splitlines()))  # fmt: skip


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_table(done, tmp_path):
    out, _ = done
    again = tmp_path / "again"
    command = [sys.executable, ROOT / "launch" / COMMAND[0], *COMMAND[1:], f"--out={again}"]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)  # fmt: skip
    while not list(again.glob("seed-0/*.trained")):
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
    assert not [path for path in again.rglob(".*") if path.suffix in (".claim", ".part")]
