"""The module reads problem sets from files, the `datasets` library, or the embedded sets."""

import hashlib
import heapq
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.data.row_files import SUFFIXES, is_absent, read_rows, value_at
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say

_COLUMNS = ("problem", "question")
"""The columns of the problem in the usual data sets: MATH-500, AIME and DeepScaleR; GSM8K and GaoKao."""
_ROLES = ("system", "developer", "user", "assistant")


def training_problems(cfg: ProblemConfig) -> list[Problem]:
    """Returns the training problems that `cfg` names: those of its part, of as many as its limit allows.

    Raises BadInput as `load_problems` does, and where the part has none.
    """
    problems = load_problems(cfg.train, cfg, cfg.limit_train)
    found = [problem for problem in problems if _part_of(problem.problem_id, cfg.parts) == cfg.part]
    if not found:
        raise BadInput(
            f"problems.part={cfg.part}: holds none of {len(problems)} training problems in {cfg.parts} parts; take "
            "fewer parts, or more problems"
        )
    return found


def _part_of(problem: str, parts: int) -> int:
    """Returns the part, from 1 on, of the problem with this id: by another hash than tells what is held out."""
    digest = hashlib.sha256(f"part/{problem}".encode()).digest()
    return int.from_bytes(digest[:8]) * parts // 2**64 + 1


def load_problems(spec: str, cfg: ProblemConfig, limit: int | None = None) -> list[Problem]:
    """Returns the problems that `spec` names, in their order; with `limit`, so many of them.

    `spec` is a .jsonl or .parquet file, embedded:SPLIT, or a `datasets` name, NAME[@SUBSET]:SPLIT. The same problem
    with the same answer counts once. A limit takes the problems of the smallest ids, which are hashes, so that a set
    sorted by level gives some of every level; an embedded set has its levels in turn and gives its first problems.
    Raises BadInput that names file, row and remedy.
    """
    if spec.startswith("embedded:"):
        from o1p_jax.data.embedded import embedded_problems

        return embedded_problems(spec.removeprefix("embedded:"), limit)
    rows, split = _rows(spec)
    found: dict[str, Problem] = {}
    read = 0
    for read, row in enumerate(rows, 1):
        problem = _problem(row, f"{spec}, row {read}", cfg, spec, split)
        found.setdefault(problem.problem_id, problem)
    if not found:
        raise BadInput(f"{spec}: holds no problems; name a file or split that has some")
    if len(found) < read:
        say(f"{spec}: {read - len(found)} of {read} rows repeat a problem and are left out")
    if limit is None or limit >= len(found):
        return list(found.values())
    say(f"{spec}: {limit} of {len(found)} problems are used, chosen by their hash: the same for every seed")
    chosen = set(heapq.nsmallest(limit, found))
    return [problem for name, problem in found.items() if name in chosen]


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
    column = cfg.prompt_column or next((name for name in _COLUMNS if name in row), _COLUMNS[0])
    prompt = _value(row, column, where, "prompt_column")
    is_chat = isinstance(prompt, list) and any(isinstance(turn, dict) for turn in prompt)
    chat = _chat(prompt, column, cfg, where) if is_chat else ()
    problem = _shown(chat) if chat else _text(prompt, column, where)
    gold = lone_answer(_value(row, cfg.answer_column, where, "answer_column"), cfg.answer_column, where)
    answer = _text(gold, cfg.answer_column, where).rpartition("####")[2].strip()
    if not answer:
        raise BadInput(f"{where}: nothing stands behind '####' in column {cfg.answer_column}; add the answer")
    return Problem(
        problem_id=problem_id(problem, answer),
        source=source,
        split=split,
        problem=problem,
        answer=answer,
        level=_level(row, cfg.level_column),
        chat=chat,
    )


def _value(row: dict[str, Any], column: str, where: str, field: str) -> Any:
    try:
        return value_at(row, column)
    except KeyError:
        there = ", ".join(map(str, row)) or "none"
        raise BadInput(f"{where}: no column {column}, only {there}; set problems.{field}") from None


def _level(row: dict[str, Any], column: str) -> str:
    try:
        level = value_at(row, column)
    except KeyError:
        level = None
    return "-" if is_absent(level) else str(level)


def _text(value: Any, column: str, where: str) -> str:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if is_number and (isinstance(value, int) or math.isfinite(value)):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: column {column} holds no text; fill it in or remove the row")
    return value


def lone_answer(answer: Any, column: str, where: str) -> Any:
    """Returns the answer that a list, perhaps written as JSON (["207"]), holds alone; other answers as they are."""
    if isinstance(answer, str) and answer.startswith('["') and answer.endswith('"]'):
        try:
            answer = json.loads(answer)
        except ValueError:
            return answer
    if not isinstance(answer, list):
        return answer
    if len(answer) != 1:
        raise BadInput(f"{where}: column {column} holds a list of {len(answer)} answers; one is needed")
    return answer[0]


def _chat(turns: list[Any], column: str, cfg: ProblemConfig, where: str) -> tuple[dict[str, str], ...]:
    """Returns the turns of a prompt that is a chat. Raises BadInput for what can't be used as it is."""
    chat = []
    for number, turn in enumerate(turns, 1):
        given = {name: value for name, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
        if given.keys() != {"role", "content"} or not isinstance(given["content"], str) or given["role"] not in _ROLES:
            raise BadInput(
                f"{where}: turn {number} of column {column} must hold a role ({', '.join(_ROLES)}) and a "
                "content of text, and nothing else; change it or remove the row"
            )
        chat.append(given)
    if chat[-1]["role"] == "assistant" or not chat[-1]["content"].strip():
        raise BadInput(
            f"{where}: column {column} must end with a turn that the model is to answer; remove an "
            "assistant's last turn, or the row"
        )
    defaults = ProblemConfig()
    for field in ("system_prompt", "user_template"):
        if getattr(cfg, field) != getattr(defaults, field):
            raise BadInput(
                f"problems.{field}={getattr(cfg, field)}: {where} holds a chat, which is used as it is; leave the "
                "field out, or name a column of text"
            )
    return tuple(chat)


def _shown(chat: tuple[dict[str, str], ...]) -> str:
    """Returns a chat as the text that people see: a single turn's content, or all turns under their roles."""
    if len(chat) == 1:
        return chat[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in chat)
