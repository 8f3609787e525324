"""The module reads, from the files that other programs wrote, the solutions that these programs sampled.

A format is no more than names of columns. A row holds one solution, or several of one or more problems: where the
column of token ids holds lists of lists, each other column holds one value for all, for each problem, or for each
solution.

- jsonl: this project's own names, those of `launch/export_pool.py`;
- trl: the completions that TRL's trainers log, and the answers of its vLLM server (`prompt_ids`, `completion_ids`);
- verl: the lines of verl's `rollout_data_dir`, with the fields of its `AgentLoopOutput` for token ids;
- open_r1: data sets with a list of `generations` a problem.

None of the three trainers writes token ids unless told to, and text alone is refused: docs/pools.md says why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from o1p_jax.data.problems import lone_answer
from o1p_jax.data.row_files import SUFFIXES, is_absent, read_rows, value_at
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import sha256_file

_OURS = {
    "prompt_ids": "prompt_ids",
    "completion_ids": "completion_ids",
    "completion": "completion",
    "problem": "problem",
    "answer": "answer",
    "finish_reason": "finish_reason",
    "step": "step",
    "mask": "completion_mask",
    "level": "level",
    "source": "source",
    "split": "split",
    "seed": "seed",
}
FORMATS: dict[str, dict[str, str]] = {
    "jsonl": _OURS,
    "trl": {**_OURS, "answer": "solution", "mask": "env_mask"},
    "verl": {
        **_OURS,
        "completion_ids": "response_ids",
        "completion": "output",
        "answer": "gts",
        "mask": "response_mask",
    },
    "open_r1": {**_OURS, "completion": "generations", "finish_reason": "finish_reasons"},
}
"""Format -> what a column holds -> the column's name."""

_LISTS = ("prompt_ids", "completion_ids", "mask")
_ENDS = {"stop": "stop", "eos": "stop", "eos_token": "stop", "length": "length", "max_tokens": "length"}
"""The programs' words for how a solution ended -> 'stop' (the model ended it) or 'length' (a limit did)."""


class Solution(NamedTuple):
    """One solution as its file holds it; what can be checked without the model is checked."""

    where: str
    """The file and row of the solution, for messages."""
    source: str
    split: str
    level: str
    problem: str
    """The problem's text; empty where the file does not have it."""
    answer: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion: str | None
    """The solution's text that the file has beside the token ids; None where there is none."""
    finish_reason: str | None
    """How the solution ended, stop or length; None where the file does not say."""
    seed: int | None


def check_files(files: Sequence[str]) -> list[Path]:
    """Returns the files' paths. Raises BadInput for what can't be read and for a file that is named twice."""
    paths = [Path(file) for file in files]
    for i, path in enumerate(paths):
        if path.suffix not in SUFFIXES:
            raise BadInput(f"rollouts={path}: not a {' or '.join(SUFFIXES)} file; convert it, or name the files in it")
        if not path.is_file():
            raise BadInput(f"rollouts={path}: no such file")
        for other in paths[:i]:
            if path.stat().st_size == other.stat().st_size and sha256_file(path) == sha256_file(other):
                raise BadInput(f"rollouts={path}: the same as {other}; name each file once")
    return paths


def find_format(path: Path) -> str:
    """Returns the format that the columns of the file's first row speak of. Raises BadInput for a file without rows."""
    for row in read_rows(path):
        names = set(row.values)
        if "generations" in names:
            return "open_r1"
        if "response_ids" in names or {"input", "output"} <= names:
            return "verl"
        if {"solution", "advantage", "env_mask"} & names:
            return "trl"
        return "jsonl"
    raise BadInput(f"rollouts={path}: holds no rows; leave the file out")


def read_solutions(
    paths: Sequence[Path],
    columns: Mapping[str, str],
    steps: Sequence[int] = (),
    on_read: Callable[[int], Any] = lambda n: None,
) -> Iterator[Solution]:
    """Yields the solutions in the files, in their order; `columns` are like those of a format in `FORMATS`.

    Rows of other training steps than `steps` are passed over; without `steps` there must be one step only, because
    another step's samples come from other weights. `on_read(n)` is called as n more bytes are read. Raises BadInput
    that names file, row and remedy.
    """
    only: tuple[str, str] | None = None  # the one step, and where it was seen first
    found = False
    for path in paths:
        number = 0
        for number, row in enumerate(read_rows(path), 1):
            for values, where in _unfold(row.values, columns, f"{path}, row {number}"):
                step = _step(values, columns, where, needed=bool(steps))
                if steps and step not in map(str, steps):
                    continue
                only = only or (step, where)
                if not steps and step != only[0]:
                    raise BadInput(
                        f"{where}: of training step {step or 'none'}, {only[1]} of step {only[0] or 'none'}, so that "
                        "other weights sampled it; name with --steps the rows that the model sampled"
                    )
                found = True
                yield _solution(values, columns, where, path)
            on_read(row.bytes)
        if not number:
            raise BadInput(f"rollouts={path}: holds no rows; leave the file out")
    if not found:
        raise BadInput(f"steps={','.join(map(str, steps))}: no row of {paths[0]} and the others is of these steps")


def _unfold(row: dict[str, Any], columns: Mapping[str, str], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields each solution of a row: what a column holds -> the solution's value, and its place in the file."""
    values = {}
    for role, name in columns.items():
        with suppress(KeyError):
            values[role] = value_at(row, name)
    for role in ("prompt_ids", "completion_ids"):
        if role not in values:
            raise _without_ids(role, row, columns, where)
    ids = values["completion_ids"]
    if not (isinstance(ids, list) and ids and isinstance(ids[0], list)):
        yield values, where
        return
    for k in range(len(ids)):
        place = f"{where}, solution {k + 1}"
        yield {role: _nth(value, k, len(ids), role, columns, place) for role, value in values.items()}, place


def _nth(value: Any, k: int, of: int, role: str, columns: Mapping[str, str], where: str) -> Any:
    """Returns what a column's value says of the k-th of `of` solutions."""
    if not isinstance(value, list) or (role in _LISTS and not (value and isinstance(value[0], list))):
        return value
    if not value or of % len(value):
        raise BadInput(
            f"{where}: column {columns[role]} holds {len(value)} values for {of} solutions; it needs one for each "
            "solution, or for each problem"
        )
    return value[k * len(value) // of]


def _without_ids(role: str, row: dict[str, Any], columns: Mapping[str, str], where: str) -> BadInput:
    return BadInput(
        f"{where}: no column {columns[role]}, only {', '.join(map(str, row)) or 'none'}; token ids are needed, because "
        "text turned into ids again can give others than were sampled, so that another sequence would be trained than "
        f"was rewarded: name their column with --{role}_column, have the program that samples write them down, or "
        "sample again with o1p presample"
    )


def _step(values: dict[str, Any], columns: Mapping[str, str], where: str, needed: bool) -> str:
    step = values.get("step")
    if needed and is_absent(step):
        raise BadInput(f"{where}: column {columns['step']} holds no step; leave --steps out, or name --step_column")
    return "" if is_absent(step) else str(step)  # verl has written numbers as text


def _solution(values: dict[str, Any], columns: Mapping[str, str], where: str, path: Path) -> Solution:
    completion_ids = _ids(values, "completion_ids", columns, where)
    prompt_ids = _ids(values, "prompt_ids", columns, where)
    if not prompt_ids:
        raise BadInput(f"{where}: column {columns['prompt_ids']} is empty; log the prompt's token ids too")
    mask = values.get("mask")
    sampled = isinstance(mask, list) and len(mask) == len(completion_ids) and all(mask)
    if not (sampled or is_absent(mask)):
        raise BadInput(
            f"{where}: column {columns['mask']} marks tokens that the model did not sample; padding must be cut off, "
            "and solutions with a tool's output can't be trained on"
        )
    seed = values.get("seed")
    return Solution(
        where=where,
        source=_text(values, "source", columns, where) or path.name,
        split=_text(values, "split", columns, where) or "train",
        level=_text(values, "level", columns, where) or "-",
        problem=_text(values, "problem", columns, where) or "",
        answer=_answer(values, columns, where),
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        completion=values["completion"] if isinstance(values.get("completion"), str) else None,
        finish_reason=_end(values, columns, where),
        seed=seed if type(seed) is int and abs(seed) < 2**63 else None,
    )


def _ids(values: dict[str, Any], role: str, columns: Mapping[str, str], where: str) -> tuple[int, ...]:
    ids = values[role]
    if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
        raise BadInput(f"{where}: column {columns[role]} must hold whole numbers, a list of them for each solution")
    return tuple(ids)


def _text(values: dict[str, Any], role: str, columns: Mapping[str, str], where: str) -> str | None:
    """Returns a column's text, or its number as text; None where the column has neither."""
    value = values.get(role)
    if is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{where}: column {columns[role]} holds no text; write some, or leave the column out")
    return str(value) if str(value).strip() else None


def _answer(values: dict[str, Any], columns: Mapping[str, str], where: str) -> str:
    if "answer" not in values:
        raise BadInput(f"{where}: no column {columns['answer']}; name the gold answers' with --answer_column")
    alone = {"answer": lone_answer(values["answer"], columns["answer"], where)}
    answer = (_text(alone, "answer", columns, where) or "").rpartition("####")[2].strip()
    if not answer:
        raise BadInput(f"{where}: column {columns['answer']} holds no gold answer; fill it in or remove the row")
    return answer


def _end(values: dict[str, Any], columns: Mapping[str, str], where: str) -> str | None:
    end = values.get("finish_reason")
    if is_absent(end):
        return None
    if not isinstance(end, str) or end not in _ENDS:
        raise BadInput(
            f"{where}: column {columns['finish_reason']} says {end!r:.60}; stop and length can be used: remove the "
            "row, or the column, so that the last token tells"
        )
    return _ENDS[end]
