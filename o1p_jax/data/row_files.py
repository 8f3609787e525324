"""The module reads the rows of JSONL and Parquet files as dicts, a few at a time: a file may be larger than memory."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import is_unicode

SUFFIXES = (".jsonl", ".parquet")
_BATCH_ROWS = 256  # of Parquet; a row of long solutions takes a few MB as Python lists


class Row(NamedTuple):
    """One row of a file."""

    values: dict[str, Any]
    bytes: int
    """The row's share of the file's bytes, by which progress is shown."""


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a .jsonl or .parquet file. Raises BadInput that names file, row and remedy."""
    return _jsonl(path) if path.suffix == ".jsonl" else _parquet(path)


def value_at(row: dict[str, Any], column: str) -> Any:
    """Returns what a row holds in `column`, whose dots lead into nested columns (reward_model.ground_truth).

    Raises KeyError where the row has no such column.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict):
            raise KeyError(column)
        value = value[part]
    return value


def is_absent(value: Any) -> bool:
    """Returns whether `value` stands for a missing one, which pandas writes as NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Row(_parsed(line, f"{path}, row {number}", first=number == 1), len(line))


def _parsed(line: bytes, where: str, first: bool) -> dict[str, Any]:
    """Returns the object that a line of JSONL holds; the `first` line may begin with a byte order mark."""
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
        values = json.loads(text)
        readable = "\\u" not in text or is_unicode(json.dumps(values, ensure_ascii=False))
    except UnicodeDecodeError:
        raise BadInput(f"{where}: not UTF-8 text; convert the file") from None
    except json.JSONDecodeError as e:
        raise BadInput(f"{where}: not valid JSON ({e.msg}); one object a line is needed") from None
    except (ValueError, RecursionError) as e:  # a number of thousands of digits; lists in lists in lists
        raise BadInput(f"{where}: can't be read ({e}); write long numbers as text, and nest less deep") from None
    if not isinstance(values, dict):
        raise BadInput(f"{where}: not a JSON object; one object a line is needed")
    if not readable:
        raise BadInput(f"{where}: holds half of a surrogate pair, which is no character; replace it or remove the row")
    return values


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            size = path.stat().st_size // max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(_BATCH_ROWS):
                try:
                    rows = batch.to_pylist()
                except UnicodeDecodeError:
                    number += _first_damaged(batch)
                    raise BadInput(f"{path}, row {number}: not UTF-8 text; write it again or remove it") from None
                for values in rows:
                    yield Row(values, size)
                number += len(rows)
    except BadInput:
        raise
    except (OSError, pa.ArrowException, ValueError, OverflowError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BadInput(f"{path}: not readable as Parquet behind row {number} ({reason}); write it again") from None


def _first_damaged(batch: Any) -> int:
    """Returns which row of a batch, counted from 1, holds text that is not UTF-8."""
    for number in range(1, batch.num_rows):
        try:
            batch.slice(number - 1, 1).to_pylist()
        except UnicodeDecodeError:
            return number
    return batch.num_rows
