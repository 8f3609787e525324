"""Rollouts on disk: one row a sampled solution, in Parquet shards of one folder.

Every stage (presample, grade, weigh) fills such a folder. `meta.json` and each shard's key-value metadata say what the
rows were made with; a folder is never mixed with rows made otherwise. Beside each shard lies its SHA-256, in the form
that `sha256sum -c` reads, because Parquet lets a flipped bit in a header pass.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_json, write_atomic, write_json

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("level", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("sample_idx", pa.int32()),  # 0..K-1 within the problem
        ("seed", pa.int64()),
        ("finish_reason", pa.string()),  # stop, length
        ("pred", pa.string()),  # final answer as found in the completion; null: none, or not graded yet
        ("grade", pa.string()),  # a status of grading.Grade; null: not graded yet
        ("ref_mean_len", pa.float64()),  # Lbar: mean tokens over the problem's samples
        ("ref_acc", pa.float64()),  # Abar: share of them that is correct
        ("reward", pa.float64()),  # R_LH, neither clipped nor normalised
        ("weight", pa.float64()),  # the advantage; null: not kept for training
    ]
)

_META = "meta.json"
_KEY = b"o1p_jax"
_LABELS = {"model", "shards"}  # say where things came from; the digests beside them decide what is equal


class RolloutFolder:
    """A folder of shards `part-00000.parquet` ... with one metadata."""

    def __init__(self, path: Path | str):
        """Opens an existing folder. Raises BadInput where there is none."""
        self.path = Path(path)
        if not (self.path / _META).is_file():
            raise BadInput(f"{self.path}: no rollouts here ({_META} is missing); run the stage that writes them first")
        self.metadata: dict[str, Any] = read_json(self.path / _META)

    @classmethod
    def create(cls, path: Path | str, metadata: dict[str, Any], shards: int) -> "RolloutFolder":
        """Makes the folder, or opens it when its rows were made with the same `metadata` (JSON values).

        Raises BadInput that names the first field that differs.
        """
        path = Path(path)
        metadata = json.loads(json.dumps(metadata | {"shards": shards}))
        if not (path / _META).exists():
            write_json(path / _META, metadata)
        folder = cls(path)
        there = folder.metadata
        for name in [*metadata, *there]:
            if name not in _LABELS and there.get(name) != metadata.get(name):
                raise BadInput(
                    f"{path}: holds rollouts made with {name}={there.get(name)}, not {metadata.get(name)}; "
                    "use another run folder, or remove this one"
                )
        return folder

    @property
    def shards(self) -> int:
        """Number of shards the folder has when it is complete."""
        return self.metadata["shards"]

    def shard_path(self, index: int) -> Path:
        return self.path / f"part-{index:05}.parquet"

    def missing_shards(self) -> list[int]:
        """Shards not written yet. A shard is written whole or not at all, so one that exists is complete."""
        return [i for i in range(self.shards) if not self.shard_path(i).exists()]

    def write_shard(self, index: int, rows: pa.Table | list[dict[str, Any]]) -> None:
        """Writes shard `index`, whole or not at all; columns that `rows` (dicts) leave out are null.

        One that is there stays: another process made it meanwhile, and may have read it already.
        """
        if self.shard_path(index).exists():
            return
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=SCHEMA)
        table = table.cast(SCHEMA).replace_schema_metadata({_KEY: json.dumps(self.metadata, sort_keys=True)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        path, data = self.shard_path(index), buffer.getvalue()
        write_atomic(_digest_path(path), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
        write_atomic(path, data)  # last: it makes the shard complete

    def read_shard(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Shard `index`. Raises CorruptData when it does not read back as written."""
        path = self.shard_path(index)
        try:
            data, digest = path.read_bytes(), _digest_path(path).read_text().split()[0]
        except FileNotFoundError:
            raise BadInput(f"{path}: not written yet; run the stage that writes it to its end") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptData(f"{path}: not as it was written; remove the file and run its stage again")
        table = pq.read_table(pa.BufferReader(data), columns=columns)
        stored = json.loads(table.schema.metadata[_KEY])
        if stored != self.metadata:
            raise CorruptData(
                f"{path}: comes from another folder than {self.path / _META} describes; remove the file "
                "and run its stage again"
            )
        return table.replace_schema_metadata()

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, in shard order. Raises BadInput when shards are missing, CorruptData when one is damaged."""
        return pa.concat_tables([self.read_shard(i, columns) for i in range(self.shards)])


def _digest_path(shard: Path) -> Path:
    return shard.with_name(shard.name + ".sha256")
