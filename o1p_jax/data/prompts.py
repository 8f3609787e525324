"""The module turns problems into prompts of token ids, and sampled ids back into text."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.records import Problem
from o1p_jax.grading import thoughts
from o1p_jax.runtime.errors import BadInput, O1pError
from o1p_jax.runtime.files import read_json
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.signals import processor_time_limit

_RENDERING_S = 10
"""Seconds of processor time that a chat template may take for one prompt."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """A set of problems as prompts of one model."""

    problems: list[Problem]
    prompt_ids: dict[str, tuple[int, ...]]
    """The prompts' token ids by problem_id."""
    inside_thought: frozenset[str]
    """The problem_ids whose prompt ends inside a thought, which the chat template opened."""
    stop_ids: tuple[int, ...]
    """Tokens that end a completion."""

    @property
    def longest(self) -> int:
        """The longest prompt's number of tokens."""
        return max(map(len, self.prompt_ids.values()))

    @property
    def identity(self) -> dict[str, Any]:
        """Digests of all that a sample depends on by its prompt: the problems and the prompts."""
        ids = self.prompt_ids
        return {
            "problems_sha256": fingerprint([[p.problem_id, p.level] for p in self.problems]),
            "prompts_sha256": fingerprint([ids[p.problem_id] for p in self.problems]),
            "stop_ids": list(self.stop_ids),
        }


def make_prompts(folder: Path, problems: Sequence[Problem], cfg: ProblemConfig) -> PromptSet:
    """Returns the problems as prompts of the model in `folder`; with `cfg.too_long` = skip, without those too long.

    Raises BadInput for prompts that are too long or can't be made, and for a tokenizer that can't be used.
    """
    prompter = Prompter(folder, cfg)
    prompt_ids = {p.problem_id: ids for p in problems if (ids := prompter.prompt_ids(p)) is not None}
    if left_out := len(problems) - len(prompt_ids):
        limit = f"problems.max_prompt_tokens={cfg.max_prompt_tokens}"
        if not prompt_ids:
            raise BadInput(f"{problems[0].source}: every prompt is longer than {limit}; raise it")
        say(f"{problems[0].source}: {left_out} of {len(problems)} problems are left out, longer than {limit}")
    return PromptSet(
        problems=[p for p in problems if p.problem_id in prompt_ids],
        prompt_ids=prompt_ids,
        inside_thought=frozenset(name for name, ids in prompt_ids.items() if prompter.opens_thought(ids)),
        stop_ids=prompter.eos_ids,
    )


class Prompter:
    """A prompter makes prompt tokens of problems, and text of completions, by a model's tokenizer and chat template."""

    def __init__(self, folder: Path, cfg: ProblemConfig | None = None):
        """Loads the tokenizer. Raises BadInput when it is missing. Text is decoded without a chat template."""
        from transformers import AutoTokenizer

        self._folder, self._cfg = folder, cfg or ProblemConfig()
        self._tokenizer: Any
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as e:  # the library raises many kinds, of the file that is missing or broken
            raise BadInput(
                f"{folder}: no usable tokenizer ({_reason(e)}); copy the model's tokenizer files there"
            ) from None
        self._vocab_size = read_json(folder / "config.json").get("vocab_size")
        special = {i: token.content for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        self._special = {*special, *self._tokenizer.all_special_ids}
        self._marks = {i for i, token in special.items() if thoughts.belongs_to_mark(token)}
        self._lengths: dict[int, int] = {}

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

    def prompt_ids(self, problem: Problem) -> tuple[int, ...] | None:
        """Returns the problem's prompt by the chat template.

        A prompt of more than `max_prompt_tokens` is None with `too_long` = skip, else BadInput. Raises BadInput too
        where the template does not make a prompt, or makes one of tokens that the model does not have.
        """
        text = self._rendered(problem)
        # The template writes the special tokens itself; the tokenizer would add a second BOS.
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise BadInput(f"{self._folder}: the chat template makes an empty prompt; put the model's own there")
        if self._vocab_size is not None and max(ids) >= self._vocab_size:
            token = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise BadInput(
                f"{_name(problem)}: the prompt holds the token {token} ({max(ids)}), which is not among the model's "
                f"{self._vocab_size}; leave the problem out, or use the tokenizer that the model came with"
            )
        if len(ids) <= self._cfg.max_prompt_tokens:
            return tuple(ids)
        if self._cfg.too_long == "skip":
            return None
        raise BadInput(
            f"{_name(problem)}: {len(ids)} prompt tokens; raise problems.max_prompt_tokens="
            f"{self._cfg.max_prompt_tokens}, remove it, or leave such problems out with problems.too_long=skip"
        )

    def _rendered(self, problem: Problem) -> str:
        from jinja2 import TemplateError

        template = self._template
        messages = list(problem.chat)
        if not messages:
            messages = [{"role": "user", "content": self._cfg.user_template.replace("{problem}", problem.problem)}]
            if self._cfg.system_prompt is not None:
                messages.insert(0, {"role": "system", "content": self._cfg.system_prompt})
        try:
            with processor_time_limit(_RENDERING_S):
                return self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=template,
                    add_generation_prompt=True,
                    tokenize=False,
                    strftime_now=self._strftime_now,
                    **self._cfg.template_kwargs or {},
                )
        except O1pError:
            raise
        except TemplateError as e:
            raise BadInput(
                f"{self._folder}: the chat template refuses the messages ({e}); many refuse a system turn: "
                "move problems.system_prompt into problems.user_template"
            ) from None
        except Exception as e:  # whatever the template's own code runs into
            raise BadInput(
                f"{self._folder}: the chat template fails ({_reason(e)}); put the model's own chat_template.jinja there"
            ) from None

    def _strftime_now(self, form: str) -> str:
        """Tells the template the date that is kept with the samples, in place of the clock's."""
        day = date.today() if self._cfg.date is None else date.fromisoformat(self._cfg.date)
        return day.strftime(form)

    @cached_property
    def _template(self) -> str:
        """The tokenizer's chat template, or the one of several that the configuration names."""
        there, cfg = self._tokenizer.chat_template, self._cfg
        if not there:
            raise BadInput(
                f"{self._folder}: the tokenizer has no chat template; put the model's chat_template.jinja there"
            )
        templates = there if isinstance(there, dict) else {"default": there}
        name = cfg.chat_template or "default"
        if name not in templates:
            raise BadInput(
                f"problems.chat_template={cfg.chat_template}: {self._folder} has the chat templates "
                f"{', '.join(templates)}; name one of these"
            )
        for variable in cfg.template_kwargs or {}:
            if not re.search(rf"\b{re.escape(variable)}\b", templates[name]):
                raise BadInput(
                    f"problems.template_kwargs: the chat template of {self._folder} has no variable {variable}; "
                    "leave it out"
                )
        return templates[name]

    def opens_thought(self, prompt_ids: Sequence[int]) -> bool:
        """Returns whether a prompt ends inside a thought."""
        return thoughts.opens_thought(self.decode(prompt_ids[-50:], special=True))

    def decode(self, ids: Iterable[int], *, special: bool | None = None) -> str:
        """Returns the text of the token ids.

        `special` says whether special tokens stand in it; None stands for those alone that mark thoughts.
        """
        hidden = {True: set(), False: self._special, None: self._special - self._marks}[special]
        return self._tokenizer.decode([i for i in ids if i not in hidden])

    def text_lengths(self, ids: Sequence[int]) -> list[int]:
        """Returns how many characters each token id stands for, decoded by itself.

        In the text of all ids it may be another number: for a part of a character, or a word at the beginning.
        """
        for token in set(ids) - self._lengths.keys():
            self._lengths[token] = len(self.decode([token]))
        return [self._lengths[token] for token in ids]


def _name(problem: Problem) -> str:
    start = " ".join(itertools.islice(problem.problem.split(), 8))
    return f"{problem.source}, problem {problem.problem_id} ('{start} ...')"


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
