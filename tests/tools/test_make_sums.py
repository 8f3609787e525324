"""The sums that a small pretrained model is made shorter on."""

import json
import re

import pytest

from o1p_jax.config.sampling import ProblemConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.grading.grader import Grader
from o1p_jax.runtime.errors import BadInput
from tools.make_sums import command


def made(folder, *flags: str) -> dict[str, list[dict]]:
    command([f"--out={folder}", *flags])
    names = ("train", "test")
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in names}


def value(question: str) -> int:
    return sum(map(int, re.findall(r"[+-]?\d+", question.replace(" ", ""))))


def test_sums_differ_and_have_their_answers(tmp_path):
    rows = made(tmp_path / "sums")
    assert {name: len(part) for name, part in rows.items()} == {"train": 160, "test": 96}
    asked = [(row["prompt"][-1]["content"], row["answer"]) for part in rows.values() for row in part]
    assert len({*asked}) == len(asked)
    assert all(value(question) == answer >= 0 for question, answer in asked)
    shown = {turn["content"] for part in rows.values() for row in part for turn in row["prompt"][:-1]}
    assert not shown & {question for question, _ in asked}


def test_the_examples_are_right_by_the_grader(tmp_path):
    [row] = made(tmp_path / "sums", "--train=1", "--test=1")["train"]
    turns = row["prompt"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    examples = list(zip(turns[:-1:2], turns[1::2], strict=True))
    with Grader(workers=1) as grader:
        pairs = [(solution["content"], str(value(question["content"]))) for question, solution in examples]
        assert [grade.status for grade in grader.grade_many(pairs)] == ["correct"] * 2
    for _, solution in examples:
        steps = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", solution["content"])
        assert len(steps) == 4  # two, and once more
        assert all(int(a) + int(sign + b) == int(c) for a, sign, b, c in steps)


def test_a_run_reads_them_and_a_seed_gives_the_same(tmp_path):
    assert made(tmp_path / "a", "--train=3", "--test=2") == made(tmp_path / "b", "--train=3", "--test=2")
    assert made(tmp_path / "c", "--train=3", "--test=2", "--seed=1") != made(tmp_path / "d", "--train=3", "--test=2")
    problems = load_problems(str(tmp_path / "a" / "train.jsonl"), ProblemConfig(prompt_column="prompt"))
    assert len(problems) == 3


@pytest.mark.parametrize("flags", [("--train=0",), ("--train=2000", "--test=500")])
def test_more_sums_than_there_are_are_refused(tmp_path, flags):
    with pytest.raises(BadInput, match="at least 1 each, and 1897 together at most"):
        made(tmp_path / "sums", *flags)
    assert not (tmp_path / "sums").exists()


def test_a_folder_that_is_there_is_kept(tmp_path):
    with pytest.raises(BadInput, match="exists already"):
        made(tmp_path)
