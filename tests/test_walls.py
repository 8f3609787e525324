"""The rooms of the house: a folder imports only those above it, and the upper ones work where JAX is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "o1p_jax"

FOLDERS = (
    "runtime",
    "grading",
    "methods",
    "config",
    "evaluation",
    "data",
    "devices",
    "models",
    "sampling",
    "training",
    "stages",
    "planning",
    "commands",
)
WITHOUT_JAX = FOLDERS[: FOLDERS.index("devices")]
WITH_JAX_ALL_THE_SAME = "o1p_jax.methods.objectives"
KNOW_THE_RUN_CONFIG = ("config", "stages", "planning")


def modules(*folders: str) -> dict[str, ast.Module]:
    """Dotted name -> parsed source."""
    found = {}
    for folder in folders:
        for path in (PACKAGE / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module, inside: bool = True) -> set[str]:
    """All that a module imports, `inside` functions too."""
    names = set()
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_lies_in_a_folder_of_the_list():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    assert {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*/*.py")} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_those_above_it(folder):
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    upward = [
        f"{name} imports {imported}"
        for name, tree in modules(folder).items()
        for imported in imports(tree)
        if imported.startswith("o1p_jax.") and imported.split(".")[1] not in allowed
    ]
    assert not upward


def circles(folder: str) -> list[str]:
    """Modules of a folder that import each other in a circle at their top level."""
    trees = modules(folder)
    edges = {
        name: {
            other
            for imported in imports(
                ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
            )
            for other in trees
            if imported == other or imported.rpartition(".")[0] == other
        }
        - {name}
        for name, tree in trees.items()
    }
    while free := [name for name, others in edges.items() if not others]:
        edges = {name: others - set(free) for name, others in edges.items() if name not in free}
    return sorted(edges)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_modules_import_each_other_in_a_circle(folder):
    assert not circles(folder)


def test_only_config_stages_and_planning_know_the_whole_config():
    others = [folder for folder in FOLDERS if folder not in KNOW_THE_RUN_CONFIG]
    knowing = [
        name for name, tree in modules(*others).items() if "RunConfig" in {i.split(".")[-1] for i in imports(tree)}
    ]
    assert not knowing


_NONE_IMPORTS_JAX = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"jax", "flax", "torch", "vllm"} & set(sys.modules), name
"""


def test_the_upper_folders_import_no_jax():
    """In one process, whose first module that imports one of them is told."""
    names = sorted(modules(*WITHOUT_JAX).keys() - {WITH_JAX_ALL_THE_SAME})
    subprocess.run([sys.executable, "-c", _NONE_IMPORTS_JAX, *names], cwd=ROOT, check=True)


def test_files_stay_readable():
    paths = [path for place in ("o1p_jax", "launch", "tools") for path in (ROOT / place).rglob("*.py")]
    assert not [path for path in paths if path.read_text().count("\n") > 350]


def test_launch_files_are_thin():
    for path in (ROOT / "launch").glob("*.py"):
        assert not {"jax", "flax", "numpy"} & {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}, (
            path
        )
