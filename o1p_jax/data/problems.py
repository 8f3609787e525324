"""The module reads problem sets from files, the `datasets` library, or the embedded sets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.data.row_files import SUFFIXES, read_rows
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say


def load_problems(spec: str, cfg: ProblemConfig, limit: int | None = None) -> list[Problem]:
    """Returns the problems that `spec` names, at most the first `limit`.

    `spec` is a .jsonl or .parquet file, embedded:SPLIT, or a `datasets` name, NAME[@SUBSET]:SPLIT. The same problem
    with the same answer counts once. Raises BadInput that names file, row and remedy.
    """
    if spec.startswith("embedded:"):
        from o1p_jax.data.embedded import embedded_problems

        return embedded_problems(spec.removeprefix("embedded:"))[:limit]
    rows, split = _rows(spec)
    found: dict[str, Problem] = {}
    read = 0
    for number, row in enumerate(rows, 1):
        if len(found) == limit:
            break
        problem = _problem(row, f"{spec}, row {number}", cfg, spec, split)
        found.setdefault(problem.problem_id, problem)
        read = number
    if not found:
        raise BadInput(f"{spec}: holds no problems; name a file or split that has some")
    if len(found) < read:
        say(f"{spec}: {read - len(found)} of {read} rows repeat a problem and are left out")
    return list(found.values())


def _rows(spec: str) -> tuple[Iterable[dict[str, Any]], str]:
    """Returns the rows that `spec` names, as dicts, and the name of their split."""
    path = Path(spec)
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise BadInput(f"{spec}: no such file; problems.train and problems.test name the problem sets")
        return (row.values for row in read_rows(path)), path.stem
    name, colon, split = spec.rpartition(":")
    if not colon:
        raise BadInput(
            f"{spec}: not a problem set; give a .jsonl or .parquet file, NAME[@SUBSET]:SPLIT or embedded:test"
        )
    return _hub(name, split), split


def _hub(name: str, split: str) -> Iterable[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise BadInput(
            f"{name}:{split}: needs the datasets library (pip install datasets); or give a .jsonl or .parquet file"
        ) from None
    name, _, subset = name.partition("@")
    try:
        return datasets.load_dataset(name, subset or None, split=split)
    except Exception as e:  # the library raises dozens of kinds: unknown name, subset or split, no network
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BadInput(f"{name}:{split}: can't be loaded ({reason}); check name, subset, split and network") from None


def _problem(row: dict[str, Any], where: str, cfg: ProblemConfig, source: str, split: str) -> Problem:
    problem = _text(row, cfg.prompt_column, where, "prompt_column")
    answer = _text(row, cfg.answer_column, where, "answer_column").rpartition("####")[2].strip()
    if not answer:
        raise BadInput(f"{where}: nothing stands behind '####' in column {cfg.answer_column}; add the answer")
    level = row.get(cfg.level_column)
    return Problem(
        problem_id=problem_id(problem, answer),
        source=source,
        split=split,
        problem=problem,
        answer=answer,
        level="-" if level is None else str(level),
    )


def _text(row: dict[str, Any], column: str, where: str, field: str) -> str:
    if column not in row:
        raise BadInput(f"{where}: no column {column}, only {', '.join(map(str, row)) or 'none'}; set problems.{field}")
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: column {column} holds no text; fill it in or remove the row")
    return value
