"""The stage that makes a pool of solutions that another program sampled.

The files are read once, row by row. The solutions are checked against the model, ordered by problems, and kept on disk
until all of them are known; the pool's folder appears whole or not at all.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from o1p_jax.config.imports import ImportConfig
from o1p_jax.config.text import fingerprint
from o1p_jax.data.imports import FORMATS, Solution, check_files, find_format, read_solutions
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder, disk_errors
from o1p_jax.runtime.progress import say, track

IMPORTED = "imported"
"""The `origin` of an imported pool, and the entry of its facts that says what was imported."""

_TOLERATED = 0.05
"""The share of the solutions whose recorded text may be another than their token ids say."""
_BUFFER_BYTES = 2**26
_KB = 1000


def import_pool(cfg: ImportConfig) -> Pool:
    """Makes the pool that `cfg` asks for. A pool that was imported from the same solutions stays as it is.

    Raises BadInput for files, rows and models that do not fit, and where the folder holds something else.
    """
    path = Path(cfg.pool)
    there = _earlier(path)
    files = check_files(cfg.rollouts)
    form = find_format(files[0]) if cfg.format == "auto" else cfg.format
    source = find_model(cfg.model, cfg.revision)
    check_apart("pool", path, source.folder, f"model={cfg.model}")
    gathering = _Gathering(source, Prompter(source.folder), cfg.problems_per_shard)
    with _spool_beside(path) as folder:
        spool = _Spool(folder)
        with _reading(files) as on_read:
            for solution in read_solutions(files, {**FORMATS[form], **cfg.columns}, cfg.steps, on_read):
                spool.add(*gathering.add(solution))
        spool.flush()
        gathering.check_texts()
        identity = gathering.identity(form)
        for line in gathering.lines(form, len(files)):
            say(f"import: {line}")
        if there is not None:
            for name in there.differences(identity):
                raise BadInput(
                    f"pool={path}: holds another import ({name} differs); name another folder, or remove this one"
                )
            say(f"import: {path} holds these solutions already")
            return there
        with atomic_folder(path) as temporary:
            pool = Pool.create(
                temporary,
                identity=identity,
                facts={
                    "origin": IMPORTED,
                    "model": source.name,
                    "commit": source.commit,
                    IMPORTED: gathering.facts(form, [file.name for file in files]),
                },
                problems=[known.problem for known in gathering.problems.values()],
                prompts={name: known.prompt_ids for name, known in gathering.problems.items()},
                inside_thought=gathering.inside_thought,
                problems_per_shard=cfg.problems_per_shard,
            )
            with track("write pool", total=pool.samples.shards, unit="shards") as bar:
                for shard in range(pool.samples.shards):
                    pool.samples.write_shard(shard, gathering.sort(spool.rows(shard)))
                    bar.advance()
    return Pool(path)


def _earlier(path: Path) -> Pool | None:
    """Returns the imported pool in `path`, None if it is empty. Raises BadInput where anything else lies there."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if not (path / "pool.json").is_file():
        raise BadInput(f"pool={path}: exists and is not a pool; name another folder")
    pool = Pool(path)
    if pool.facts["origin"] != IMPORTED:
        raise BadInput(f"pool={path}: holds samples that were made here; name another folder")
    return pool


@contextmanager
def _spool_beside(path: Path) -> Iterator[Path]:
    """Yields a temporary folder on the disk that the pool will lie on."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            yield Path(folder)


@contextmanager
def _reading(files: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Shows how much of the files is read; yields a function that is called with the number of bytes newly read."""
    total = sum(file.stat().st_size for file in files)
    read = shown = 0
    with track("import", total=total // _KB, unit="kB") as bar:

        def on_read(n: int) -> None:
            nonlocal read, shown
            read += n
            if read // _KB > shown:
                bar.advance(read // _KB - shown)
                shown = read // _KB

        yield on_read
        bar.advance(total // _KB - shown)  # a Parquet file's rows do not add up to all of it


class _Spool:
    """A spool keeps rows on disk, each shard's apart, in the order in which they came."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._waiting: dict[int, list[bytes]] = {}
        self._bytes = 0

    def add(self, shard: int, line: bytes) -> None:
        self._waiting.setdefault(shard, []).append(line)
        self._bytes += len(line)
        if self._bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        for shard, lines in self._waiting.items():
            with (self._folder / str(shard)).open("ab") as file:
                file.writelines(lines)
        self._waiting, self._bytes = {}, 0

    def rows(self, shard: int) -> list[dict[str, Any]]:
        with (self._folder / str(shard)).open("rb") as file:
            return [json.loads(line) for line in file]


@dataclass
class _Known:
    """A problem, and what has been seen of its solutions."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    where: str
    number: int
    samples: int = 0
    seen: set[int] = field(default_factory=set)
    """Hashes of the problem's solutions so far."""
    digest: Any = field(default_factory=hashlib.sha256)
    """SHA-256 over the problem's level, prompt and solutions so far."""


class _Gathering:
    """A gathering checks solutions against the model, and groups them by problem."""

    def __init__(self, source: SourceModel, prompter: Prompter, problems_per_shard: int):
        self.problems: dict[str, _Known] = {}
        self._source, self._prompter, self._per_shard = source, prompter, problems_per_shard
        self._ends = frozenset(prompter.eos_ids)
        self._counts: Counter[str] = Counter()
        self._first_other_text = ""

    def add(self, solution: Solution) -> tuple[int, bytes]:
        """Takes a solution in; returns the solution's shard, and its row as a line of JSON."""
        known = self._problem(solution)
        self._check_ids(solution)
        self._count_repeats(known, solution)
        text = self._prompter.decode(solution.completion_ids)
        self._compare(solution, text)
        end = solution.finish_reason or self._derived(solution)
        row = {
            "problem_id": known.problem.problem_id,
            "sample_idx": known.samples,
            "seed": solution.seed,
            "completion": text,
            "completion_ids": solution.completion_ids,
            "finish_reason": end,
        }
        line = json.dumps(row).encode() + b"\n"
        known.digest.update(line)
        known.samples += 1
        return known.number // self._per_shard, line

    def _problem(self, solution: Solution) -> _Known:
        text = solution.problem or "prompt token ids " + " ".join(map(str, solution.prompt_ids))
        name = problem_id(text, solution.answer)
        known = self.problems.get(name)
        if known is None:
            problem = Problem(
                problem_id=name,
                source=solution.source,
                split=solution.split,
                problem=solution.problem,
                answer=solution.answer,
                level=solution.level,
            )
            known = _Known(problem, solution.prompt_ids, solution.where, len(self.problems))
            known.digest.update(json.dumps([problem.level, solution.prompt_ids]).encode())
            self.problems[name] = known
        if known.prompt_ids != solution.prompt_ids:
            raise BadInput(
                f"{solution.where}: other prompt ids than {known.where} has for the same problem, so that their "
                "solutions are not of one prompt; import them as two pools"
            )
        return known

    def _check_ids(self, solution: Solution) -> None:
        vocabulary = self._source.decoder.vocab_size
        for what, ids in (("prompt", solution.prompt_ids), ("completion", solution.completion_ids)):
            if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
                wrong = next(i for i in ids if not 0 <= i < vocabulary)
                raise BadInput(
                    f"{solution.where}: token id {wrong} of the {what} is not among the {vocabulary} of "
                    f"model={self._source.name}; name the model that made the samples"
                )
        length, context = len(solution.prompt_ids) + len(solution.completion_ids), self._source.decoder.context
        if length > context:
            raise BadInput(
                f"{solution.where}: prompt and completion have {length} tokens, and the context of "
                f"model={self._source.name} has {context}; leave the row out"
            )
        if solution.prompt_ids[0] == self._prompter.pad_id:
            raise BadInput(f"{solution.where}: the prompt ids begin with padding; cut it off")
        if not self._ends.isdisjoint(solution.completion_ids[:-1]):
            raise BadInput(
                f"{solution.where}: the completion goes on after a token that ends it; cut padding and later turns off"
            )

    def _count_repeats(self, known: _Known, solution: Solution) -> None:
        """Counts a solution that its problem has already, which a model may give twice, but not from one seed.

        Raises BadInput where the seed is the same as well.
        """
        key = hash((solution.seed, solution.completion_ids))
        if key in known.seen:
            if solution.seed is not None:
                raise BadInput(
                    f"{solution.where}: repeats an earlier row, seed={solution.seed} included; leave one of them out"
                )
            self._counts["repeated"] += 1
        known.seen.add(key)

    def _compare(self, solution: Solution, text: str) -> None:
        recorded = solution.completion
        if recorded is None:
            return
        self._counts["compared"] += 1
        # Some programs cut white space off, and they leave special tokens in or out.
        others = (self._prompter.decode(solution.completion_ids, special=special) for special in (True, False))
        if all(form.strip() != recorded.strip() for form in chain([text], others)):
            self._counts["other text"] += 1
            self._first_other_text = self._first_other_text or solution.where

    def _derived(self, solution: Solution) -> str:
        self._counts["derived"] += 1
        return "length" if self._ends.isdisjoint(solution.completion_ids[-1:]) else "stop"

    def check_texts(self) -> None:
        """Raises BadInput where the token ids of too many solutions say something else than the recorded text."""
        other, compared = self._counts["other text"], self._counts["compared"]
        if other > _TOLERATED * compared:
            raise BadInput(
                f"{self._first_other_text}: the token ids say something else than the text by the tokenizer of "
                f"model={self._source.name}, and so do {other} of {compared} rows; name the model that made the samples"
            )

    @property
    def _samples(self) -> list[int]:
        return [known.samples for known in self.problems.values()]

    @property
    def inside_thought(self) -> set[str]:
        """The problem_ids whose prompt ends inside a thought."""
        return {name for name, known in self.problems.items() if self._prompter.opens_thought(known.prompt_ids)}

    def identity(self, form: str) -> dict[str, Any]:
        """Returns all that the pool's samples depend on; how the files mix the problems' rows does not matter."""
        return {
            "model_sha256": self._source.digest,
            "imported_sha256": fingerprint([known.digest.hexdigest() for known in self.problems.values()]),
            "imported_format": form,
        }

    def facts(self, form: str, files: list[str]) -> dict[str, Any]:
        """Returns what the pool remembers of the import, without paths of the machine."""
        return {
            "format": form,
            "files": files,
            "fewest_samples": min(self._samples),
            "most_samples": max(self._samples),
            "longest_prompt": max(len(known.prompt_ids) for known in self.problems.values()),
            "not_checked": "whether the model sampled these solutions",
        }

    def lines(self, form: str, files: int) -> Iterator[str]:
        """Yields lines that tell people what was found."""
        samples, counts = self._samples, self._counts
        yield (
            f"{sum(samples)} solutions of {len(samples)} problems ({min(samples)} to {max(samples)} each), from "
            f"{files} file{'s' if files > 1 else ''} in format {form}; recorded rewards and grades are not taken"
        )
        if n := counts["derived"]:
            yield f"{n} rows do not say how they ended: stop where the last token ends a completion, else length"
        if n := counts["repeated"]:
            yield f"{n} solutions are the same as another of their problem; all of them count"
        if n := counts["other text"]:
            yield f"{n} of {counts['compared']} recorded texts differ from what the ids say, which is what counts"
        yield f"whether {self._source.name} sampled these solutions can't be checked"

    def sort(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns a shard's rows, problem by problem."""
        return sorted(rows, key=lambda row: (self.problems[row["problem_id"]].number, row["sample_idx"]))
