"""A pool holds one model's solutions of problems, sampled once; any number of runs can be trained from it.

    pool.json           what the samples were made with
    problems/           one row a problem: text, gold answer, level, the prompt's token ids
    samples/            one row a solution: token ids, text, how it ended
    grades/KEY/         one row a solution: final answer and grade, a folder for each grader
    reference/          the model's log-probabilities of the solutions that were trained on (training/reference.py)

Each of the first three is a `ShardedTable`. Samples and grades are keyed by (problem_id, sample_idx); shard i of the
grades has the rows of shard i of the samples, in the same order.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from o1p_jax.config.text import fingerprint, plain
from o1p_jax.data.records import Problem
from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_summed_json, sum_path, write_json_with_sum

PROBLEMS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("level", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("inside_thought", pa.bool_()),  # the prompt ends inside a thought
    ]
)
SAMPLES = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample_idx", pa.int32()),  # 0..K-1 within the problem
        ("seed", pa.int64()),
        ("completion", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),  # stop, length
        ("logprobs", pa.list_(pa.float32())),  # by the sampler, nats; null but for sample 0, and where it told none
    ]
)
GRADES = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample_idx", pa.int32()),
        ("pred", pa.string()),  # final answer as found in the completion; null: none
        ("grade", pa.string()),  # a status of grading.grader.Grade
    ]
)

CONTENTS = {
    "model_sha256": "the model's weights",
    "problems_sha256": "the problems",
    "imported_sha256": "the imported solutions",
    "reference_sha256": "the reference (its samples, grades or weights)",
    "prompts_sha256": "the prompts (by the tokenizer, its chat template, or problems.user_template, date, ...)",
}
"""Names of digests in an identity -> what they are digests of."""
_KEY_COLUMNS = ("problem_id", "sample_idx")
_FACTS = "pool.json"
_FORMAT = 2


class Pool:
    """The pool in the folder `path`."""

    def __init__(self, path: Path | str):
        """Opens an existing pool. Raises BadInput where there is no pool, or one of another version."""
        self.path = Path(path)
        if not (self.path / _FACTS).is_file():
            raise BadInput(f"{self.path}: no pool here ({_FACTS} is missing); o1p presample makes one")
        self.facts: dict[str, Any] = read_summed_json(self.path / _FACTS)
        if self.facts.get("format") != _FORMAT:
            raise BadInput(f"{self.path}: a pool of another version; name another folder, or remove this one")
        self.problems = ShardedTable(self.path / "problems", PROBLEMS)
        self.samples = ShardedTable(self.path / "samples", SAMPLES)

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        identity: Mapping[str, Any],
        facts: Mapping[str, Any],
        problems: Sequence[Problem],
        prompts: Mapping[str, Sequence[int]],
        inside_thought: Collection[str] = (),
        problems_per_shard: int,
    ) -> "Pool":
        """Makes an empty pool for `problems`, or opens the pool that lies at `path`, if its identity is the same.

        `identity` is all that the samples depend on (JSON values); `facts` are further values to remember; `prompts`
        are token ids by problem_id, `inside_thought` the problem_ids whose prompt ends inside a thought. Raises
        BadInput that names the first value of the identity that differs.
        """
        path = Path(path)
        identity = plain(identity)
        if not Pool.lies_in(path):
            # Any number of processes may do this at once: all of them write the same.
            table = ShardedTable.create(path / "problems", PROBLEMS, identity, 1)
            rows = [
                asdict(p)
                | {"prompt_ids": list(prompts[p.problem_id]), "inside_thought": p.problem_id in inside_thought}
                for p in problems
            ]
            table.write_shard(0, rows)
            ShardedTable.create(path / "samples", SAMPLES, identity, -(-len(problems) // problems_per_shard))
            layout = {"format": _FORMAT, "problems": len(problems), "problems_per_shard": problems_per_shard}
            write_json_with_sum(path / _FACTS, {**layout, **facts, "identity": identity})
        pool = cls(path)
        pool.check(identity)
        return pool

    @staticmethod
    def lies_in(path: Path) -> bool:
        """Returns whether a pool lies in `path`.

        A folder that is empty, was being made when its maker was killed, or has lost its pool.json holds no pool.
        Raises BadInput where something else lies there.
        """
        if (path / _FACTS).is_file():
            return True
        parts = {"problems", "samples", "grades", "reference", sum_path(path / _FACTS).name}
        if path.exists() and (
            not path.is_dir() or any(f.name[0] != "." and f.name not in parts for f in path.iterdir())
        ):
            raise BadInput(f"pool={path}: exists and is not a pool; name another folder")
        return False

    @property
    def identity(self) -> dict[str, Any]:
        """All that the pool's samples depend on, as JSON values by name."""
        return self.facts["identity"]

    @property
    def references(self) -> Path:
        """The folder of the log-probabilities of the solutions under the model that trainings begin from."""
        return self.path / "reference"

    @property
    def key(self) -> str:
        """SHA-256 of the identity: pools with the same key hold the same samples."""
        return fingerprint(self.identity)

    @property
    def complete(self) -> bool:
        """Whether the pool holds all of its samples."""
        return not self.samples.missing_shards()

    def texts(self) -> list[str]:
        """Returns the texts of the pool's problems."""
        return self.problems.read(["problem"])["problem"].to_pylist()

    def differences(self, identity: Mapping[str, Any]) -> list[str]:
        """Returns the names of the values in which `identity` differs from the pool's own."""
        wanted = plain(identity)
        return [name for name in {**wanted, **self.identity} if self.identity.get(name) != wanted.get(name)]

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises BadInput that names the first value of `identity` which the pool's samples were not made with."""
        for name in self.differences(identity):
            made_with = (
                f"another {name}, by a change of {CONTENTS[name]}"
                if name in CONTENTS
                else f"{name}={self.identity.get(name)}, not {identity.get(name)}"
            )
            raise BadInput(f"{self.path}: its samples were made with {made_with}; set it back, or name another pool")

    def grades(self, made_by: Mapping[str, Any]) -> ShardedTable:
        """Returns the table of grades by the grader that `made_by` (JSON values) describes; it may be empty as yet."""
        folder = self.path / "grades" / self.grades_key(made_by)[:12]
        return ShardedTable.create(folder, GRADES, {**made_by, "samples": self.key}, self.samples.shards)

    def grades_key(self, made_by: Mapping[str, Any]) -> str:
        """Returns the SHA-256 of all that the grades by the grader `made_by` depend on, the samples included."""
        return fingerprint({**made_by, "samples": self.key})

    def read_shard(
        self, shard: int, columns: Collection[str], *others: ShardedTable, problems: pa.Table | None = None
    ) -> pa.Table:
        """Returns the `columns` of a shard's solutions, from the samples, tables keyed like them, and the problems.

        `problems` is the table of all problems, where the caller has read it already.
        """
        tables = [t for t in (self.samples, *others) if t is self.samples or set(t.schema.names) & set(columns)]
        found: dict[str, pa.ChunkedArray] = {}
        keys: tuple[list, ...] | None = None
        for table in tables:
            wanted = [n for n in table.schema.names if n in columns and n not in found and n not in _KEY_COLUMNS]
            part = table.read_shard(shard, [*_KEY_COLUMNS, *wanted])
            these = tuple(part[name].to_pylist() for name in _KEY_COLUMNS)
            if keys is not None and these != keys:
                raise CorruptData(f"{table.shard_path(shard)}: not the rows of {self.samples.shard_path(shard)}")
            keys = these
            found |= {name: part[name] for name in (*_KEY_COLUMNS, *wanted)}
        of_problems = [n for n in PROBLEMS.names if n in columns and n not in found]
        if of_problems:
            problems = self.problems.read() if problems is None else problems
            row = {problem: i for i, problem in enumerate(problems["problem_id"].to_pylist())}
            rows = pa.array([row[problem] for problem in found["problem_id"].to_pylist()], pa.int64())
            found |= {name: problems[name].take(rows) for name in of_problems}
        return pa.table({name: found[name] for name in columns})

    def read(self, columns: Collection[str], *others: ShardedTable) -> pa.Table:
        """Returns the `columns` of all solutions, in shard order; see `read_shard`.

        A table that is not in the samples' shards, as a run's weights are, is joined by problem and sample.
        """
        problems = self.problems.read() if set(columns) & set(PROBLEMS.names) - set(_KEY_COLUMNS) else None
        sharded = [table for table in others if table.shards == self.samples.shards]
        whole = [table for table in others if table.shards != self.samples.shards]
        of_whole = {name: table for table in reversed(whole) for name in table.schema.names if name in columns}
        here = [*_KEY_COLUMNS, *(n for n in columns if n not in (*_KEY_COLUMNS, *of_whole))]
        shards = range(self.samples.shards)
        table = pa.concat_tables([self.read_shard(i, here, *sharded, problems=problems) for i in shards])
        found = {name: table[name] for name in table.column_names}
        keys = list(zip(*(found[name].to_pylist() for name in _KEY_COLUMNS), strict=True))
        for other in whole:
            part = other.read()
            row = {key: i for i, key in enumerate(zip(*(part[n].to_pylist() for n in _KEY_COLUMNS), strict=True))}
            if row.keys() != set(keys):
                raise CorruptData(f"{other.path}: not the rows of {self.samples.path}")
            rows = pa.array([row[key] for key in keys], pa.int64())
            found |= {n: part[n].take(rows) for n, owner in of_whole.items() if owner is other and n not in found}
        return pa.table({name: found[name] for name in columns})
