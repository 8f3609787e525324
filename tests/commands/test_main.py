"""The commands as a user meets them: their names, their help, and what is said of a mistyped one."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from o1p_jax.commands import main
from o1p_jax.config.text import flatten
from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime.errors import BadInput

ROOT = Path(__file__).parents[2]
OWN = {
    "train": {"config", "method", "restart", "dry_run", "coordinator", "processes", "process"},
    "presample": {"config", "method", "restart"},
    "evaluate": {"config", "method", "models", "problems", "out"},
    "plan": {"config", "method", "topology", "json", "sweep", "price", "problems_count", "solution_tokens"},
}


def module(name: str):
    return import_module(f"o1p_jax.commands.{name.replace('-', '_')}")


def helped(name: str, capsys, monkeypatch) -> tuple[str, dict[str, str]]:
    """The command's help, and flag -> what the help says of the flag."""
    monkeypatch.setenv("COLUMNS", "100")  # one box below the other
    with pytest.raises(SystemExit) as ended:
        module(name).command(["--help"])
    assert not ended.value.code
    text = re.sub("[│|╭╮╰╯─]|\x1b\\[[0-9;]*m", " ", capsys.readouterr().out)
    _, *parts = re.split(r"\n\s*--(?=\w)", text)
    return text, {part.split(maxsplit=1)[0].rstrip(","): part for part in parts}


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_lists_every_flag_with_a_text(name, capsys, monkeypatch):
    text, flags = helped(name, capsys, monkeypatch)
    assert text.startswith(module(name).__doc__.splitlines()[0]) and f"o1p {name}" in text
    if name in OWN:
        assert flags.keys() >= {*flatten(RunConfig()), *OWN[name], "debug"}
    assert "debug" in flags
    for flag, said in flags.items():
        about, *end = re.split(r"\((?:default:|required)", re.sub(r"\{[^}]*\}", "", said.removeprefix(flag)))
        assert end and len(re.findall(r"\b[A-Za-z][a-z]+", about)) >= 2, flag


def test_each_command_is_a_launch_file_too():
    for name in main.COMMANDS:
        assert f'run("{name}")' in (ROOT / "launch" / f"{name.replace('-', '_')}.py").read_text()
    assert len(main.COMMANDS) == len([*(ROOT / "launch").glob("*.py")])


def test_commands_import_no_jax_until_they_are_called():
    names = ", ".join(module(name).__name__ for name in main.COMMANDS)
    code = f"import sys, {names}; assert not {{'jax', 'flax', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_program_names_its_commands(capsys, monkeypatch):
    for argv in (["o1p"], ["o1p", "--help"]):
        monkeypatch.setattr("sys.argv", argv)
        main.main()
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "did you mean train?"),
        ("check_parity", "did you mean check-parity?"),
        ("x", "there are train, presample"),
    ],
)
def test_a_mistyped_command_is_one_line(name, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["o1p", name])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr().err
    assert ended.value.code == BadInput.exit_code and message in said and said.count("\n") == 1
