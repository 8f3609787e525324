"""A table on disk is a folder of Parquet shards, each of which is written whole or not at all.

`_meta.json` and each shard's key-value metadata say what the rows were made with; a folder is never mixed with rows
made otherwise. Beside each shard lies its SHA-256, in the form that `sha256sum -c` reads, because Parquet lets a
flipped bit in a header pass. All files but the shards have names that begin with `_` or `.`, so that pyarrow, pandas
and `datasets` open the folder as one table.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax.config.text import plain
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_summed, read_summed_json, write_json_with_sum, write_with_sum

META = "_meta.json"
_KEY = b"o1p_jax"


class ShardedTable:
    """A folder of shards `part-00000.parquet` ... with one schema and one metadata."""

    def __init__(self, path: Path | str, schema: pa.Schema):
        """Opens an existing folder. Raises BadInput where there is none."""
        self.path, self.schema = Path(path), schema
        if not (self.path / META).is_file():
            raise BadInput(f"{self.path}: nothing here ({META} is missing); run the stage that writes it first")
        self.metadata: dict[str, Any] = read_summed_json(self.path / META)

    @classmethod
    def create(cls, path: Path | str, schema: pa.Schema, metadata: Mapping[str, Any], shards: int) -> "ShardedTable":
        """Makes the folder `path`, or opens it when its rows were made with the same `metadata` (JSON values).

        Raises BadInput that names the first field that differs.
        """
        path = Path(path)
        wanted = plain({**metadata, "shards": shards})
        if not (path / META).exists():
            write_json_with_sum(path / META, wanted)
        table = cls(path, schema)
        for name in [*wanted, *table.metadata]:
            if table.metadata.get(name) != wanted.get(name):
                raise BadInput(
                    f"{path}: made with {name}={table.metadata.get(name)}, not {wanted.get(name)}; "
                    "use another folder, or remove this one"
                )
        return table

    @property
    def shards(self) -> int:
        """The number of shards that the folder has when it is complete."""
        return self.metadata["shards"]

    def shard_path(self, index: int) -> Path:
        """Returns the path of the file of shard `index`."""
        return self.path / f"part-{index:05}.parquet"

    def missing_shards(self) -> list[int]:
        """Returns the numbers of the shards that are not written yet; a shard that exists is complete."""
        return [i for i in range(self.shards) if not self.shard_path(i).exists()]

    def write_shard(self, index: int, rows: pa.Table | list[dict[str, Any]]) -> None:
        """Writes shard `index`, whole or not at all; columns that `rows` (dicts) leave out are null.

        A shard that exists already stays: another process made it meanwhile, and may have read it already.
        """
        path = self.shard_path(index)
        if path.exists():
            return
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=self.schema)
        table = table.cast(self.schema).replace_schema_metadata({_KEY: json.dumps(self.metadata, sort_keys=True)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_with_sum(path, buffer.getvalue())

    def read_shard(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Returns the rows of shard `index`; a column that the version which wrote them did not know is null.

        Raises CorruptData when they do not read back as written.
        """
        path = self.shard_path(index)
        try:
            data = read_summed(path)
        except FileNotFoundError:
            raise BadInput(f"{path}: not written yet; run the stage that writes it to its end") from None
        wanted = self.schema.names if columns is None else columns
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read([name for name in wanted if name in file.schema_arrow.names])
        if json.loads(table.schema.metadata[_KEY]) != self.metadata:
            raise CorruptData(
                f"{path}: comes from another folder than {self.path / META} describes; remove the file "
                "and run its stage again"
            )
        for name in wanted:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, self.schema.field(name).type))
        return table.select(wanted).replace_schema_metadata()

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Returns all rows, in shard order. Raises BadInput when one is missing, CorruptData when one is damaged."""
        return pa.concat_tables([self.read_shard(i, columns) for i in range(self.shards)])
