"""The module reads the rows of JSONL and Parquet files as dicts, a few at a time: a file may be larger than memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from o1p_jax.runtime.errors import BadInput

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


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    values = json.loads(line.decode())
                    if not isinstance(values, dict):
                        raise BadInput(f"{path}, row {number}: not a JSON object; one object a line is needed")
                    yield Row(values, len(line))
        except json.JSONDecodeError as e:
            raise BadInput(f"{path}, row {number}: not valid JSON ({e.msg}); one object a line is needed") from None
        except UnicodeDecodeError:
            raise BadInput(f"{path}: not UTF-8 text; convert it") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            size = path.stat().st_size // max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(_BATCH_ROWS):
                for values in batch.to_pylist():
                    yield Row(values, size)
    except (OSError, pa.ArrowException) as e:
        raise BadInput(f"{path}: not readable as Parquet ({str(e).splitlines()[0]}); write it again") from None
