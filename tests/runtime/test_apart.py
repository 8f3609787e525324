import os

import pytest

from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.errors import BadInput


@pytest.fixture
def source(tmp_path):
    (tmp_path / "data" / "model" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/model")
    return tmp_path / "data" / "model"


@pytest.mark.parametrize(
    "path", ["data/model", "data", ".", "data/model/deep", "data/model/new/er", "link", "link/new", "data/x/../model"]
)
def test_the_same_folder_above_or_below_is_refused_by_any_name(source, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for written in (path, str(tmp_path / path)):
        for read in (source, tmp_path / "link"):
            with pytest.raises(BadInput, match=r"out=.* is, holds or lies in the model"):
                check_apart("out", written, read, "the model")


@pytest.mark.parametrize("path", ["data/model2", "data/other", "new", "link2"])
def test_folders_beside_it_are_fine(source, tmp_path, path):
    (tmp_path / "link2").symlink_to("nowhere")
    check_apart("out", tmp_path / path, source, "the model")


def test_the_files_that_links_lead_to_are_protected(source, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w").write_text("w")
    (source / "w").symlink_to(tmp_path / "weights" / "w")
    with pytest.raises(BadInput):
        check_apart("out", tmp_path / "weights", source, "the model")
    check_apart("out", tmp_path / "weights" / "new", source, "the model")


def test_links_in_a_circle_are_no_end(source, tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    check_apart("out", tmp_path / "a" / "x", source, "the model")
