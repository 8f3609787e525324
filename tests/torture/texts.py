"""Hostile text, as a model may write it, is graded, read, imported and shown in bounded time; nothing of it runs."""

import html.parser
import json
import random
from pathlib import Path

from made_rollouts import rollouts, row

from o1p_jax.config.imports import ImportConfig
from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.evaluation.effort import with_passes
from o1p_jax.evaluation.page import write_report
from o1p_jax.evaluation.summary import Graded, compare
from o1p_jax.evaluation.table import Note
from o1p_jax.grading.grader import Grader
from o1p_jax.stages.import_pool import import_pool
from tests.torture.damages import outcome
from tests.torture.job import Home

PIECES = (
    "\\boxed{", "}", "\\frac{1}{", "\\mathbf{", "\\text{", "\\left(", "\\sqrt[", "[1^", "9^", "^{9^{9", "!", "(", "[",
    "{", "$", "$$", "\\begin{matrix}", "&", "\\\\", "\\sum_{n=1}^{10^9}", "\\int", "e^", "factorial(10**9)",
    "The answer is ", "####", " ", "\t", "\n", "1", "0.", "1e999999999", "1/0", "--", ",", "%", "\\%",
    "__import__('os').system('touch pwned')", "{{ 7 * 7 }}", "{% for i in range(10**9) %}x{% endfor %}",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</pre></body>", "javascript:alert(1)", "<!--",
    "]]>", "&#60;script&#62;", "'\"><svg onload=alert(1)>", "\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x1b[2J",
    "\ud800", "\U0001f600", "\u0301", "\u0661", "\uff11", "\u00bd", "<think>", "</think>", "</s>", "<assistant>",
    "=cmd|' /C calc'!A0", "../../etc/passwd", "{problem}", "%s%n", "\\", "|", "`", "x", "\u2028", "NaN", "Infinity",
    "true",
)  # fmt: skip
"""What hostile texts are put together from."""


def hostile(rng: random.Random) -> str:
    """Returns a text: a few pieces, each repeated now and then, some very often, in any order."""
    many = [1, 1, 2, 5, 50, 3000, 20000]
    pieces = [rng.choice(PIECES) * rng.choice(many) for _ in range(rng.randint(1, 6))]
    start = rng.choice(["", "So \\boxed{", "The answer is ", "<think>"])
    return start + "".join(pieces) + rng.choice(["", "}", "}" * 3000])


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Gives a hostile text to all that reads text; a hang is seen from outside."""
    text = hostile(rng)
    folder = home.folder / f"text-{number}"
    folder.mkdir()
    with Grader(workers=1, timeout_s=1) as grader:
        grades = grader.grade_many([(text, "4"), ("So \\boxed{4}.", text), (text, text)])
    assert all(g.status in ("correct", "wrong", "unparsed", "timeout", "bad_gold") for g in grades)
    assert grades[0].status != "correct" or "4" in text, "a text without the answer is right"
    as_problem(home, folder, text)
    as_rollout(home, folder, text)
    on_the_page(folder, text)
    assert not list(Path().glob("pwned")) and not list(folder.rglob("pwned"))


def as_problem(home: Home, folder: Path, text: str) -> None:
    path, cfg = folder / "problems.jsonl", ProblemConfig()
    for column in ("problem", "answer", "level"):
        path.write_text(json.dumps({"problem": "1+1?", "answer": "2", "level": "1"} | {column: text}))
        outcome(lambda: make_prompts(home.model, load_problems(str(path), cfg), cfg))


def as_rollout(home: Home, folder: Path, text: str) -> None:
    prompter = Prompter(home.model)
    values = {"prompt_ids": [5, 6], "completion_ids": [7, *prompter.eos_ids], "problem": "1+1?", "answer": "2"}
    for column in ("completion", "problem", "answer", "finish_reason", "source", "level", "prompt_ids"):
        path = folder / "rollouts.jsonl"
        path.write_text(json.dumps(values | {column: text}))
        wanted = ImportConfig(rollouts=(str(path),), pool=str(folder / column), model=str(home.model))
        outcome(lambda wanted=wanted: import_pool(wanted))


def on_the_page(folder: Path, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()  # a tokenizer gives no halves of surrogate pairs
    rows = [row(text, 3, "correct", text=text, level=text, answer=text), row("p2", 4, "wrong", text=text)]
    solutions = with_passes(rollouts(rows), lambda ids: [1] * len(ids))
    runs = [Graded(name, text, solutions) for name in ("before", "after")]
    results, notes = compare(runs, budgets=(2, 3), resamples=5, seed=0), {text: [Note(text, warns=True)]}
    page = write_report(folder / "report", runs, results, title=text, facts={"model": text}, notes=notes)
    Parser().feed(page.read_text())


class Parser(html.parser.HTMLParser):
    """Finds what could run or fetch something."""

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "object", "embed", "form", "base"), f"<{tag}> on the page"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} on the page"
            address = name in ("href", "src", "action") and not (value or "").startswith(("#", "data:image/"))
            assert not address, f"{name}={value!r:.80} on the page"
