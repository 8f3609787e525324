"""Rows of files that other programs wrote, and files that are damaged."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from o1p_jax.data.row_files import read_rows, value_at
from o1p_jax.runtime.errors import BadInput


def values(path):
    return [row.values for row in read_rows(path)]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('\ufeff{"a": 1}\r\n{"a": 2}\n'.encode())
    assert values(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": "\\ud835"}', "holds half of a surrogate pair"),
        (b'{"a": {"b": ["\\udc00 x"]}}', "holds half of a surrogate pair"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "can't be read .*; write long numbers as text, and nest less deep"),
        (b"[" * 100_000, "can't be read"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),  # a byte order mark belongs at the beginning
        (b"{", "not valid JSON"),
        (b"7", "not a JSON object"),
    ],
)
def test_a_damaged_row_is_named_by_file_and_row(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(BadInput, match=rf"x\.jsonl, row 2: .*{message}"):
        values(path)


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"a": "\N{MATHEMATICAL BOLD CAPITAL A}"}))
    assert "\\ud835" in path.read_text()
    assert values(path) == [{"a": "\N{MATHEMATICAL BOLD CAPITAL A}"}]


def test_parquet_with_bad_utf8_names_the_row(tmp_path):
    texts = [b"fine"] * 300
    texts[270] = b"\xff\xfe"
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet")
    with pytest.raises(BadInput, match=r"x\.parquet, row 271: not UTF-8 text"):
        values(tmp_path / "x.parquet")


def test_damaged_parquet_is_one_line(tmp_path):
    """Bytes are changed one by one, all over the file."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [f"row {i}" for i in range(50)], "b": list(range(50))}), path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            values(path)
        except BadInput as e:
            assert "x.parquet" in str(e) and "\n" not in str(e)
            refused += 1
    assert refused > 10


def test_dots_lead_into_nested_columns():
    row = {"a": {"b": {"c": 1}}, "a.b": 2, "d": None}
    assert (value_at(row, "a.b.c"), value_at(row, "a.b"), value_at(row, "d")) == (1, 2, None)
    for column in ("a.c", "d.e", "e", "a.b.c.d"):
        with pytest.raises(KeyError):
            value_at(row, column)
