"""Problem sets in, prompts out."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from o1p_jax.config import ProblemConfig, fingerprint
from o1p_jax.errors import BadInput
from o1p_jax.files import read_json
from o1p_jax.progress import say
from o1p_jax.records import Problem, problem_id


def load_problems(spec: str, cfg: ProblemConfig, limit: int | None = None) -> list[Problem]:
    """The problems that `spec` names, at most the first `limit`.

    `spec` is a .jsonl or .parquet file, embedded:SPLIT, or a `datasets` name, NAME[@SUBSET]:SPLIT. The same problem
    with the same answer counts once. Raises BadInput that names file, row and remedy.
    """
    if spec.startswith("embedded:"):
        from o1p_jax.embedded.problems import embedded_problems

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
    """The rows as dicts, and the split's name."""
    path = Path(spec)
    if path.suffix in (".jsonl", ".parquet"):
        if not path.is_file():
            raise BadInput(f"{spec}: no such file; problems.train and problems.test name the problem sets")
        return (_jsonl(path) if path.suffix == ".jsonl" else _parquet(path)), path.stem
    name, colon, split = spec.rpartition(":")
    if not colon:
        raise BadInput(
            f"{spec}: not a problem set; give a .jsonl or .parquet file, NAME[@SUBSET]:SPLIT or embedded:test"
        )
    return _hub(name, split), split


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise BadInput(f"{path}, row {number}: not a JSON object; one object a line is needed")
                    yield row
        except json.JSONDecodeError as e:
            raise BadInput(f"{path}, row {number}: not valid JSON ({e.msg}); one object a line is needed") from None
        except UnicodeDecodeError:
            raise BadInput(f"{path}: not UTF-8 text; convert it") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as e:
        raise BadInput(f"{path}: not readable as Parquet ({str(e).splitlines()[0]}); write it again") from None


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


class Prompter:
    """Problems to prompt tokens and completions back to text, with a model's tokenizer and chat template."""

    def __init__(self, folder: Path, cfg: ProblemConfig):
        """Raises BadInput when the folder's tokenizer is missing, lacks a chat template or does not fit the model."""
        from transformers import AutoTokenizer

        self._folder, self._cfg = folder, cfg
        self._tokenizer: Any
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as e:  # the library raises many kinds, of the file that is missing or broken
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise BadInput(
                f"{folder}: no usable tokenizer ({reason}); copy the model's tokenizer files there"
            ) from None
        if not self._tokenizer.chat_template:
            raise BadInput(f"{folder}: the tokenizer has no chat template; put the model's chat_template.jinja there")
        vocab_size = read_json(folder / "config.json").get("vocab_size")
        if vocab_size is not None and len(self._tokenizer) > vocab_size:
            raise BadInput(
                f"{folder}: the tokenizer does not match the model: {len(self._tokenizer)} tokens for a "
                f"vocabulary of {vocab_size}; use the tokenizer that the model came with"
            )

    @property
    def template_hash(self) -> str:
        """SHA-256 of all that turns a problem into a prompt: chat template, system prompt and user template."""
        return fingerprint([self._tokenizer.chat_template, self._cfg.system_prompt, self._cfg.user_template])

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion: the generation config's and the tokenizer's."""
        path = self._folder / "generation_config.json"
        listed = read_json(path).get("eos_token_id") if path.exists() else None
        ids = [*(listed if isinstance(listed, list) else [listed]), self._tokenizer.eos_token_id]
        return tuple(dict.fromkeys(i for i in ids if i is not None))

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The prompt through the chat template. Raises BadInput when it exceeds `max_prompt_tokens`."""
        from jinja2 import TemplateError

        user = self._cfg.user_template.replace("{problem}", problem.problem)
        messages = [{"role": "user", "content": user}]
        if self._cfg.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self._cfg.system_prompt})
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as e:
            raise BadInput(
                f"{self._folder}: the chat template refuses the messages ({e}); many refuse a system turn: "
                "move problems.system_prompt into problems.user_template"
            ) from None
        # The template writes the special tokens itself; the tokenizer would add a second BOS.
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > self._cfg.max_prompt_tokens:
            start = " ".join(itertools.islice(problem.problem.split(), 8))
            raise BadInput(
                f"{problem.source}, problem {problem.problem_id} ('{start} ...'): {len(ids)} prompt tokens; "
                f"raise problems.max_prompt_tokens={self._cfg.max_prompt_tokens} or remove it"
            )
        return tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)
