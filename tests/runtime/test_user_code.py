"""A user's function is found by FILE.py:NAME, or refused in one line that says what is wrong with it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.user_code import UserFunction, public_name, split


def written(tmp_path, text: str, name: str = "f") -> UserFunction:
    (tmp_path / "mine.py").write_text(text)
    return UserFunction.read("some.flag", f"{tmp_path / 'mine.py'}:{name}")


def test_the_function_that_is_named(tmp_path):
    text = "from typing import NamedTuple\nclass A(NamedTuple):\n    x: int\ndef f(a, b): return A(a + b)\n"
    code = written(tmp_path, text)
    assert code.load(arguments=2)(1, 2).x == 3
    assert code.load(arguments=2) is code.load(arguments=2)
    assert code.digest == hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert code.label == "mine.py:f"
    assert not (tmp_path / "__pycache__").exists()


def test_the_source_that_was_read_is_the_source_that_runs(tmp_path):
    code = written(tmp_path, "def f():\n    return 1\n")
    (tmp_path / "mine.py").write_text("def f():\n    return 2\n")
    assert code.load(arguments=0)() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "SyntaxError in line 1"),
        ("\nimport nothing_of_the_sort", "ModuleNotFoundError in line 2"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def g(): pass\ndef h(): pass", "has no f; its functions: g, h"),
        ("", "has no f; its functions: none"),
        ("f = 3", "f is a int; name a function"),
        ("def f(a): pass", "is called with 2 arguments"),
        ("def f(a, b, c): pass", "is called with 2 arguments"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(BadInput) as error:
        written(tmp_path, text).load(arguments=2)
    assert str(error.value).startswith(f"some.flag={tmp_path / 'mine.py'}:f: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=rf"some\.flag=mine\.py:f: mine\.py can't be read from {tmp_path} .*full path"):
        UserFunction.read("some.flag", "mine.py:f")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(BadInput, match="can't be read"):
        UserFunction.read("some.flag", "folder.py:f")


@pytest.mark.parametrize(
    "where", ["", "mine.py", "f", "mine.py:", ":f", "mine:f", "mine.txt:f", "mine.py:f g", "mine.py:1"]
)
def test_another_form_is_refused(where):
    with pytest.raises(BadInput, match=r"some\.flag=.*must be FILE\.py:NAME"):
        split("some.flag", where)


@given(st.text())
def test_any_text_is_split_or_refused(where):
    try:
        file, name = split("some.flag", where)
    except BadInput:
        return
    assert f"{file}:{name}" == where and public_name(where).endswith(f":{name}") and "/" not in public_name(where)
