"""Tables in shards: what goes in comes out, and nothing else gets in."""

import json
import random

import datasets
import pandas
import pyarrow.parquet as pq
import pytest

from o1p_jax.data.pool import SAMPLES
from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import sha256_file

FACTS = {"model": "m", "model_sha256": "a", "seed": 0, "temperature": 1.0, "stop_ids": (1, 2)}


def row(sample=0, **values):
    return {
        "problem_id": "p",
        "sample_idx": sample,
        "seed": sample,
        "completion": "2",
        "completion_ids": [3] * (sample + 1),
        "finish_reason": "stop",
    } | values


@pytest.fixture
def folder(tmp_path):
    folder = ShardedTable.create(tmp_path / "r", SAMPLES, FACTS, shards=2)
    folder.write_shard(0, [row(0), row(1)])
    folder.write_shard(1, [row(2)])
    return folder


def test_round_trip(folder):
    table = ShardedTable(folder.path, SAMPLES).read()
    assert table.schema.equals(SAMPLES)
    assert table["sample_idx"].to_pylist() == [0, 1, 2]
    assert table["completion_ids"].to_pylist() == [[3], [3, 3], [3, 3, 3]]
    assert table["completion"].to_pylist() == ["2", "2", "2"]
    assert folder.read(["seed"]).column_names == ["seed"]


def test_a_column_that_an_earlier_version_did_not_know_is_null(tmp_path):
    now = "logprobs"
    earlier = SAMPLES.remove(SAMPLES.get_field_index(now))
    ShardedTable.create(tmp_path / "r", earlier, FACTS, shards=1).write_shard(0, [row(0), row(1)])
    table = ShardedTable(tmp_path / "r", SAMPLES)
    assert table.read().schema.equals(SAMPLES) and table.read()[now].to_pylist() == [None, None]
    assert table.read([now, "seed"]).to_pylist() == [{now: None, "seed": 0}, {now: None, "seed": 1}]


def test_missing_shards(tmp_path):
    folder = ShardedTable.create(tmp_path / "r", SAMPLES, FACTS, shards=3)
    assert folder.missing_shards() == [0, 1, 2]
    folder.write_shard(1, [row()])
    assert folder.missing_shards() == [0, 2]
    with pytest.raises(BadInput, match=r"part-00000\.parquet: not written yet"):
        folder.read()


def test_other_tools_find_the_facts_in_each_file(folder):
    stored = json.loads(pq.read_schema(folder.shard_path(0)).metadata[b"o1p_jax"])
    assert stored["model_sha256"] == "a" and stored["stop_ids"] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "made with seed=0, not 1"),
        ({"temperature": 0.5}, "temperature=1.0, not 0.5"),
        ({"model_sha256": "b"}, "model_sha256=a, not b"),
        ({"lam": 2}, "lam=None, not 2"),
    ],
)
def test_other_facts_are_refused_by_name(folder, change, message):
    with pytest.raises(BadInput, match=message):
        ShardedTable.create(folder.path, SAMPLES, FACTS | change, shards=2)


def test_no_folder(tmp_path):
    with pytest.raises(BadInput, match="nothing here"):
        ShardedTable(tmp_path, SAMPLES)


def test_every_flipped_bit_and_every_cut_is_found(folder):
    path = folder.shard_path(0)
    whole = path.read_bytes()
    rng = random.Random(0)
    for trial in range(100):
        data = bytearray(whole)
        if trial % 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        with pytest.raises(CorruptData, match=r"part-00000.parquet: not as it was written; remove"):
            folder.read_shard(0)


def test_digests_are_those_of_sha256sum(folder):
    line = (folder.path / "_part-00000.sha256").read_text()
    assert line == f"{sha256_file(folder.shard_path(0))}  part-00000.parquet\n"


def test_the_folder_is_one_table_to_other_tools(folder, tmp_path):
    """Of the folder's files only the shards are data, whatever else lies there while the folder is being filled."""
    (folder.path / ".part-00002.claim").write_text("{}")
    assert pq.read_table(folder.path).num_rows == 3
    assert pandas.read_parquet(folder.path)["sample_idx"].tolist() == [0, 1, 2]
    read = datasets.load_dataset(str(folder.path), split="train", cache_dir=str(tmp_path / "cache"))
    assert read["sample_idx"][:] == [0, 1, 2] and read.column_names == SAMPLES.names


def test_a_shard_of_another_folder_is_refused(folder, tmp_path):
    other = ShardedTable.create(tmp_path / "other", SAMPLES, FACTS | {"seed": 5}, shards=2)
    other.write_shard(0, [row(7)])
    for file in other.path.glob("*part-*"):
        file.replace(folder.path / file.name)
    with pytest.raises(CorruptData, match="another folder"):
        folder.read()


@pytest.mark.parametrize("sum_", [b"", b"\n", b"\xff\xfe", b"0" * 64, b"part-00000.parquet"])
def test_a_damaged_sum_is_told_in_one_line(folder, sum_):
    (folder.path / "_part-00000.sha256").write_bytes(sum_)
    with pytest.raises(CorruptData, match=r"part-00000.parquet: not as it was written; remove the file and run"):
        folder.read_shard(0)


def test_a_missing_sum_has_a_remedy(folder):
    (folder.path / "_part-00000.sha256").unlink()
    with pytest.raises(CorruptData, match=r"can't be checked, because .*.sha256 is gone; remove the file and run"):
        folder.read_shard(0)


@pytest.mark.parametrize("text", ["[]", "5", "null", '"meta"', "{}", '{"shards": "two"}'])
def test_other_metadata_than_was_written_is_damage(folder, text):
    (folder.path / "_meta.json").write_text(text)
    with pytest.raises(CorruptData, match=r"_meta.json: "):
        ShardedTable(folder.path, SAMPLES)
