"""Digests of files are kept by the files' state."""

import hashlib
import os

import pytest

from o1p_jax.runtime import digests
from o1p_jax.runtime.digests import kept_sha256


@pytest.fixture
def reads(monkeypatch, tmp_path) -> list:
    """The files that were read, with a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen, read = [], digests.sha256_file

    def note(path):
        seen.append(path.name)
        return read(path)

    monkeypatch.setattr(digests, "sha256_file", note)
    return seen


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path, reads):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert kept_sha256(file) == kept_sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert reads == ["weights"]
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 1))  # whatever the clock's resolution
    assert kept_sha256(file) == hashlib.sha256(b"two").hexdigest()
    (tmp_path / "other").write_bytes(b"six")
    os.utime(tmp_path / "other", ns=(0, 1))
    (tmp_path / "other").replace(file)  # same size and time, another file
    assert kept_sha256(file) == hashlib.sha256(b"six").hexdigest()
    assert reads == ["weights"] * 3


def test_a_change_whose_time_was_put_back_is_noticed(tmp_path, reads):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    kept_sha256(file)
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # a file system's clock has ticks
        file.write_bytes(b"two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept_sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_a_link_is_the_file_that_it_leads_to(tmp_path, reads):
    (tmp_path / "blob").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    assert kept_sha256(tmp_path / "link") == kept_sha256(tmp_path / "blob")
    assert len(reads) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"state": 1}'])
def test_a_damaged_cache_costs_time_only(tmp_path, reads, damage):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = kept_sha256(file)
    (entry,) = (tmp_path / "cache" / "o1p_jax" / "digests").iterdir()
    entry.write_text(damage)
    assert kept_sha256(file) == first and len(reads) == 2


def test_without_a_cache_folder_digests_are_right_all_the_same(tmp_path, reads, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "weights").write_bytes(b"one")
    assert kept_sha256(tmp_path / "weights") == kept_sha256(tmp_path / "weights") == hashlib.sha256(b"one").hexdigest()
