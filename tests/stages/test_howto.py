"""The how-to pages as a user follows them: their file, their command, small settings."""

import contextlib
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from counted_job import counting
from small_job import SMALL

from o1p_jax.commands import train
from o1p_jax.data.pool import GRADES, Pool
from o1p_jax.data.shards import ShardedTable
from o1p_jax.runtime.user_code import UserFunction
from o1p_jax.stages.weigh import read_weights

ROOT = Path(__file__).parents[2]


def follow(page: str, folder: Path) -> tuple[UserFunction, pa.Table, str]:
    """Does what the page says; returns its function, the weighed samples and the model card."""
    text = (ROOT / "docs" / page).read_text()
    (file,) = re.findall(r"^`(\w+\.py)`, in the folder that you run", text, re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```sh\n(.*)\n```", text, re.MULTILINE)
    assert code.count("\n") <= 15
    (folder / file).write_text(code)
    program, script, *flags = shlex.split(command)
    assert (program, script) == ("python", "launch/train.py")
    with contextlib.chdir(folder), counting():
        train.command([*flags, *SMALL])
    run = folder / "runs/mine"
    assert (run / "model/model.safetensors").is_file()
    flag, _, where = flags[-1].removeprefix("--").partition("=")
    function = UserFunction.read(flag, str(folder / where))
    card = (run / "model/README.md").read_text()
    assert f"| `{flag}` | {function.label} |" in card and str(folder) not in card
    pool = Pool(run / "pool")
    (grades,) = (ShardedTable(folder, GRADES) for folder in (pool.path / "grades").iterdir())
    columns = ("grade", "pred", "completion", "answer", "ref_mean_len", "reward", "weight")
    return function, pool.read(columns, grades, read_weights(run / "weights")), card


@pytest.mark.slow
def test_a_reward_of_your_own(tmp_path):
    function, rows, card = follow("howto_own_reward.md", tmp_path)
    reward, length = (rows[name].to_numpy() for name in ("reward", "ref_mean_len"))
    right = np.array(rows["grade"].to_pylist()) == "correct"
    assert len(reward) == 32 and (reward[~right] == 0).all() and (reward[right] >= 1).all() and (reward <= 1.5).all()
    assert len(set(reward.round(6))) > 4 and (length > 0).all() and rows["weight"].to_numpy().std() > 0
    assert f"`{function.label}`" in card and function.digest[:12] in card and "L̄" not in card


@pytest.mark.slow
def test_a_grader_of_your_own(tmp_path):
    function, rows, _ = follow("howto_own_grader.md", tmp_path)
    last_number, said = function.load(arguments=2), {True: "correct", False: "wrong", None: "unparsed"}
    solutions, answers = rows["completion"].to_pylist(), rows["answer"].to_pylist()
    expected = [said[last_number(text, answer)] for text, answer in zip(solutions, answers, strict=True)]
    assert rows["grade"].to_pylist() == expected
    assert any(row["pred"] is None and row["grade"] != "unparsed" for row in rows.to_pylist())  # ours would say so
