"""What killed processes leave is removed, and nothing that a live process writes, or that somebody else put there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from o1p_jax.runtime import owner
from o1p_jax.runtime.leftovers import hidden_below, remove_leftovers

WRITING = """
import sys, time
from pathlib import Path
from o1p_jax.runtime.files import atomic_folder, atomic_path

run = Path(sys.argv[1])
with atomic_folder(run / "model") as model, atomic_path(run / "pool" / "part-00000.parquet") as part:
    (model / "model.safetensors").write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_was_writing_is_removed_and_not_before(tmp_path, capsys):
    command = [sys.executable, "-c", WRITING, tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    hidden = sorted(hidden_below(tmp_path))
    assert [path.name.split(".")[1] for path in hidden] == ["model", "part-00000"]
    remove_leftovers(hidden_below(tmp_path), owned=True)
    assert sorted(hidden_below(tmp_path)) == hidden
    process.send_signal(signal.SIGKILL)
    process.wait()
    remove_leftovers(hidden_below(tmp_path))
    assert not list(hidden_below(tmp_path)) and (tmp_path / "pool").is_dir()
    assert capsys.readouterr().err.endswith("and 1 more: left by a killed process, and removed\n")


@pytest.fixture
def of_another_machine(tmp_path) -> Path:
    path = tmp_path / ".digest.txt.0123456789ab-1-1.abcdefgh"
    path.write_text("x")
    return path


def test_of_another_machine_only_what_is_old_or_lies_in_an_own_folder(tmp_path, of_another_machine):
    remove_leftovers(hidden_below(tmp_path))
    assert of_another_machine.exists()
    remove_leftovers(hidden_below(tmp_path), owned=True)
    assert not of_another_machine.exists()
    of_another_machine.write_text("x")
    os.utime(of_another_machine, (time.time() - 48 * 3600,) * 2)
    remove_leftovers(hidden_below(tmp_path))
    assert not of_another_machine.exists()


def test_claims_of_made_shards_and_of_dead_processes_go(tmp_path):
    machine, number, start = owner.this_process().split("-")
    claims = {
        ".part-00000.claim": '{"owner": "0123456789ab-1-1"}',  # its shard is made
        ".part-00001.claim": f'{{"owner": "{machine}-{number}-{int(start) - 1}"}}',
        ".part-00002.claim": f'{{"owner": "{machine}-{number}-{start}"}}',
        ".part-00003.claim": '{"owner": "0123456789ab-1-1"}',
    }
    for name, text in claims.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "part-00000.parquet").touch()
    remove_leftovers(hidden_below(tmp_path))
    assert sorted(p.name for p in hidden_below(tmp_path)) == [".part-00002.claim", ".part-00003.claim"]


def test_others_hidden_files_stay(tmp_path):
    for name in (".gitignore", ".nfs000012", ".config.settings", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    remove_leftovers(hidden_below(tmp_path), owned=True)
    assert len(list(tmp_path.iterdir())) == 5
