"""Log-probabilities of the reference model, computed once by our own model and kept in Parquet.

The sampler's own are no substitute: under top_p or top_k they are renormalised over the kept tokens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax import files, processes, progress
from o1p_jax.batches import Batch, assemble, pack, sample_length
from o1p_jax.config import BatchConfig, fingerprint
from o1p_jax.records import TrainingSample

SAMPLES_PER_PART = 256  # what a killed run computes again at most

_SCHEMA = pa.schema([("problem_id", pa.string()), ("sample_idx", pa.int32()), ("logprobs", pa.list_(pa.float32()))])


def reference_logprobs(
    samples: Sequence[TrainingSample], batch: BatchConfig, folder: Path, made_by: dict,
    logprobs: Callable[[Batch], np.ndarray],
) -> list[np.ndarray]:  # fmt: skip
    """float32 log-probabilities (nats) of each sample's completion tokens, in the order of `samples`.

    `logprobs` maps a batch of one microbatch to [R, L]. Parts already in `folder` are read if they were made by
    `made_by` from the same tokens and their checksums hold; else they are computed again.
    """
    parts = [samples[i : i + SAMPLES_PER_PART] for i in range(0, len(samples), SAMPLES_PER_PART)]
    found: list[np.ndarray] = []
    with progress.track("reference log-probs", total=len(samples), unit="samples") as bar:
        for n, part in enumerate(parts):
            path = folder / f"part-{n:05d}.parquet"
            key = fingerprint([made_by, [(s.prompt_ids, s.completion_ids) for s in part]])
            values = _read(path, key)
            if not processes.agreed(values is not None) or values is None:
                values = _compute(part, batch, logprobs)
                if processes.leader():
                    _write(path, key, part, values)
            found += values
            bar.advance(len(part))
    return found


def _compute(
    samples: Sequence[TrainingSample], batch: BatchConfig, logprobs: Callable[[Batch], np.ndarray]
) -> list[np.ndarray]:
    rows = pack([sample_length(s) for s in samples], batch.row_length)
    segments = max(map(len, rows))
    values = [np.empty(0, np.float32)] * len(samples)
    for start in range(0, len(rows), batch.rows_per_microbatch):
        group = rows[start : start + batch.rows_per_microbatch]
        arrays = assemble(samples, None, group, 1, batch.rows_per_microbatch, batch.row_length, segments)
        logprobs_RL = logprobs(arrays)
        for r, row in enumerate(group):
            for m, i in enumerate(row):
                values[i] = logprobs_RL[r, (arrays.segments_RL[0, r] == m + 1) & arrays.mask_RL[0, r]]
    return values


def _write(path: Path, key: str, samples: Sequence[TrainingSample], values: list[np.ndarray]) -> None:
    columns = [[s.problem_id for s in samples], [s.sample_idx for s in samples], values]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), _SCHEMA).replace_schema_metadata({"key": key})
    with files.atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _read(path: Path, key: str) -> list[np.ndarray] | None:
    """The part's values, or None where it must be computed."""
    if not path.exists():
        return None
    reason = "damaged"
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if (table.schema.metadata or {}).get(b"key") != key.encode():
            reason = "made from another model or other samples"
        elif table.schema.equals(_SCHEMA):
            return [np.asarray(v.values, np.float32) for v in table["logprobs"]]
    except (pa.ArrowException, OSError):
        pass
    progress.say(f"{path}: {reason}; computing it again")
    return None
