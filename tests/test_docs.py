"""What the pages tell a reader to type is what the commands take, and what it makes is not taken for the project's."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from o1p_jax.commands.main import COMMANDS
from o1p_jax.runtime.place import find_place
from o1p_jax.sampling import vllm
from o1p_jax.stages import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "configs").glob("*.py")),
         *sorted((ROOT / "o1p_jax" / "commands").glob("*.py"))]  # fmt: skip
COMMAND = re.compile(r"(?:python launch/(\w+)\.py|^ *o1p ([\w-]+))((?: +(?!#)[^\s`#&]+)*)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """The name and the flags of every command on the pages."""
    found = [
        (module or name.replace("-", "_"), flags)
        for page in PAGES
        for module, name, flags in COMMAND.findall(page.read_text().replace("\\\n", " "))
    ]
    return [(name, flags) for name, flags in dict.fromkeys(found) if "..." not in flags and "--help" not in flags]


@pytest.mark.parametrize(("name", "flags"), commands())
def test_every_command_on_a_page_is_taken(name, flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = import_module(f"o1p_jax.commands.{name}")
    _, argv = find_place(shlex.split(flags))
    parse = cli.parse_run if issubclass(module.Arguments, cli.RunFlags) else cli.parse
    assert parse(module.Arguments, argv)  # what is not taken raises


def test_there_is_an_example_of_every_command():
    assert {name.replace("_", "-") for name, _ in commands()} == {*COMMANDS} and len(commands()) > 20


def test_the_page_on_servers_has_the_variables_that_the_offline_engine_sets_by_itself():
    page = (ROOT / "docs" / "serving.md").read_text()
    [told] = re.findall(r"^ +((?:[A-Z_]+=\S+\s+\\?\s*)+)\.venv-vllm/bin/python -m vllm", page, re.MULTILINE)
    told = dict(word.split("=") for word in told.replace("\\", "").split())
    alone = {"VLLM_ENABLE_V1_MULTIPROCESSING", "TORCH_CPP_LOG_LEVEL"}  # of an engine without a server
    expected = vllm._ENVIRONMENT | vllm._CPU_ENVIRONMENT
    assert told == {name: value for name, value in expected.items() if name not in alone}


def test_what_the_pages_have_people_make_is_ignored_by_git():
    """Weights, problems and results of gigabytes would be committed by `git add .` otherwise."""
    ignored = (ROOT / ".gitignore").read_text().split()
    text = "\n".join(page.read_text() for page in PAGES)
    made = {path.split("/")[0] for path in re.findall(r"(?:--(?:out|run|pool)=|mkdir -p )([a-z][\w./]*)", text)}
    assert {"runs", "pools", "models", "gsm8k", "sums", "evaluation"} <= made
    assert [name for name in sorted(made) if not {f"{name}/", f"/{name}/"} & {*ignored}] == []


def test_the_page_on_a_real_model_begins_with_nothing():
    page = (ROOT / "docs" / "real_path.md").read_text()
    begin, *_ = page.split("launch/train.py")
    for step in ("-m venv .venv", "pip install", "tools/import_gguf.py", "install_vllm_cpu.sh", "tools/make_sums.py"):
        assert step in begin
    assert re.search(r"On disk .* GB", page, re.DOTALL) and re.search(r"took \d+ minutes", page)
