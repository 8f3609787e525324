"""A folder that is handed on: what was written there is known, and nothing else is touched."""

import subprocess
from pathlib import Path

import pytest

from o1p_jax.runtime import owner
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.sums import SUMS, check_sums, damaged, filled, is_empty, read_sums, sum_of, update_sums


def write(folder: Path, **files: str) -> Path:
    with filled(folder, "config.json") as temporary:
        for name, text in {"config_json": "{}", **files}.items():
            (temporary / name.replace("_", ".")).write_text(text)
    return folder


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_what_was_written_is_listed_as_sha256sum_reads_it(tmp_path):
    folder = write(tmp_path / "out", weights="abc")
    assert names(folder) == {"config.json", "weights", SUMS}
    assert read_sums(folder) == {name: sum_of(folder / name) for name in ("config.json", "weights")}
    assert damaged(folder) == []
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def test_only_what_was_written_is_replaced_or_removed(tmp_path):
    folder = write(tmp_path / "out", weights="abc", old="old")
    (folder / "notes.md").write_text("mine")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("mine too")
    write(folder, weights="xyz", new="new")
    assert names(folder) == {"config.json", "weights", "new", "notes.md", "mine", SUMS}
    assert (folder / "weights").read_text() == "xyz" and damaged(folder) == []
    assert (folder / "mine" / "thesis.tex").read_text() == "mine too"


@pytest.mark.parametrize("foreign", ["file", "folder", "link"])
def test_a_file_of_somebody_else_is_in_the_way(tmp_path, foreign):
    folder = write(tmp_path / "out", weights="abc")
    new = folder / "new"
    {"file": lambda: new.write_text("mine"), "folder": new.mkdir, "link": lambda: new.symlink_to("nowhere")}[foreign]()
    with pytest.raises(BadInput, match="new: was not written by this program"):
        write(folder, weights="xyz", new="new")
    assert (folder / "weights").read_text() == "abc" and damaged(folder) == []
    assert names(folder) == {"config.json", "weights", "new", SUMS}


@pytest.mark.parametrize("kill_at", range(7))
def test_a_kill_while_files_are_moved_leaves_no_whole_folder_and_is_mended(tmp_path, monkeypatch, kill_at):
    folder = write(tmp_path / "out", weights="abc", old="old")
    (folder / "notes.md").write_text("mine")
    steps = iter(range(kill_at))

    def or_die(function):
        def call(*args, **kwargs):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace"):
            patch.setattr(Path, name, or_die(getattr(Path, name)))
        try:
            write(folder, weights="xyz", new="new")
        except KeyboardInterrupt:
            assert kill_at == 0 or not (folder / "config.json").exists()
    write(folder, weights="xyz", new="new")
    assert names(folder) == {"config.json", "weights", "new", "notes.md", SUMS}
    assert damaged(folder) == []


def test_what_a_kill_left_counts_as_empty_and_goes(tmp_path):
    folder = tmp_path / "out"
    gone = owner.this_process().rsplit("-", 1)[0] + "-1"  # this process's number, of another process before it
    (folder / f".unfinished.{gone}.abc").mkdir(parents=True)
    assert is_empty(folder)
    write(folder)
    assert names(folder) == {"config.json", SUMS} and not is_empty(folder)


def test_damage_is_named_with_its_remedy(tmp_path):
    folder = write(tmp_path / "out", weights="abc", other="abc")
    (folder / "weights").write_text("abd")
    (folder / "other").unlink()
    assert damaged(folder) == ["other", "weights"]
    for name, what in (("weights", "is not as it was written"), ("other", "is missing")):
        with pytest.raises(CorruptData, match=f"{name}: {what}.*remove {folder} and run the command"):
            check_sums(folder, {name: sum_of(folder / name)})
    check_sums(folder, {"somebody else's": "1"})


@pytest.mark.parametrize("position", range(0, 400, 13))
def test_a_damaged_list_is_not_believed(tmp_path, position):
    folder = write(tmp_path / "out", weights="abc", other="abc")
    data = (folder / SUMS).read_bytes()
    for damage in (data[:position], data[:position] + bytes([data[position % len(data)] ^ 1]) + data[position + 1 :]):
        (folder / SUMS).write_bytes(damage)
        if damage == data:
            continue
        with pytest.raises(CorruptData, match=SUMS):
            read_sums(folder)


def test_a_file_that_is_written_again_is_listed_anew(tmp_path):
    folder = write(tmp_path / "out", card="one")
    (folder / "card").write_text("two")
    update_sums(folder, "card")
    assert damaged(folder) == []
    stamp = (folder / SUMS).stat().st_mtime_ns
    update_sums(folder, "card")
    assert (folder / SUMS).stat().st_mtime_ns == stamp
    (tmp_path / "card").write_text("no list here")
    update_sums(tmp_path, "card")
    assert not (tmp_path / SUMS).exists()
