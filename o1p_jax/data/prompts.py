"""The module turns problems into prompts of token ids, and sampled ids back into text."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.records import Problem
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import read_json


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A set of problems as prompts of one model."""

    problems: list[Problem]
    prompt_ids: dict[str, tuple[int, ...]]
    """The prompts' token ids by problem_id."""
    stop_ids: tuple[int, ...]
    """Tokens that end a completion."""

    @property
    def identity(self) -> dict[str, Any]:
        """Digests of all that a sample depends on by its prompt: the problems and the prompts."""
        ids = self.prompt_ids
        return {
            "problems_sha256": fingerprint([[p.problem_id, p.level] for p in self.problems]),
            "prompts_sha256": fingerprint([ids[p.problem_id] for p in self.problems]),
            "stop_ids": list(self.stop_ids),
        }


def read_prompts(folder: Path, spec: str, cfg: ProblemConfig, limit: int | None) -> PromptSet:
    """Returns the problems that `spec` names (see `load_problems`), as prompts of the model in `folder`.

    Raises BadInput for problems that can't be read, prompts that are too long, and a tokenizer that does not fit.
    """
    problems = load_problems(spec, cfg, limit)
    prompter = Prompter(folder, cfg)
    prompt_ids = {problem.problem_id: prompter.prompt_ids(problem) for problem in problems}
    return PromptSet(problems=problems, prompt_ids=prompt_ids, stop_ids=prompter.eos_ids)


class Prompter:
    """A prompter makes prompt tokens of problems, and text of completions, by a model's tokenizer and chat template."""

    def __init__(self, folder: Path, cfg: ProblemConfig | None = None):
        """Loads the tokenizer. Raises BadInput when it is missing, lacks a chat template or does not fit the model."""
        from transformers import AutoTokenizer

        self._folder, self._cfg = folder, cfg or ProblemConfig()
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
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion: the generation config's and the tokenizer's."""
        path = self._folder / "generation_config.json"
        listed = read_json(path).get("eos_token_id") if path.exists() else None
        ids = [*(listed if isinstance(listed, list) else [listed]), self._tokenizer.eos_token_id]
        return tuple(dict.fromkeys(i for i in ids if i is not None))

    @property
    def pad_id(self) -> int | None:
        """The token that fills rows up; None where there is no such token, or prompts begin with it."""
        pad = self._tokenizer.pad_token_id
        return None if pad == self._tokenizer.bos_token_id else pad

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """Returns the problem's prompt by the chat template. Raises BadInput when it exceeds `max_prompt_tokens`."""
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

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Returns the text of the token ids; special tokens are left out unless `special`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special)
