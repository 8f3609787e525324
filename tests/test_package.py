"""What is built and installed: the package with all its files, its command and its configs; the tests with theirs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "configs", "docs", "launch", "o1p_jax", "tests", "tools")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "constraints.txt", "pyproject.toml", "setup.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[set[str], Path, Path]:
    """The names of the checkout's files, the wheel and the source distribution that are built of them."""
    home = tmp_path_factory.mktemp("package")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, home / "o1p" / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in FILES:
        shutil.copy(ROOT / name, home / "o1p")
    names = {f.relative_to(home / "o1p").as_posix() for f in (home / "o1p").rglob("*") if f.is_file()}
    code = "from setuptools import build_meta as b; b.build_sdist('../out'); b.build_wheel('../out')"
    subprocess.run([sys.executable, "-c", code], cwd=home / "o1p", check=True, capture_output=True)
    return names, *(next((home / "out").glob(form)) for form in ("*.whl", "*.tar.gz"))


def test_the_wheel_holds_every_file_of_the_package_and_the_configs(built):
    names, wheel, _ = built
    packaged = {name for name in names if name.startswith("o1p_jax/")}
    packaged |= {f"o1p_jax/{name}" for name in names if name.startswith("configs/")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == packaged and "o1p_jax/configs/embedded.py" in held


def test_the_source_distribution_holds_every_file(built):
    names, _, source = built
    with tarfile.open(source) as tar:
        held = {member.name.partition("/")[2] for member in tar if member.isfile()}
    assert names <= held and "tests/helpers/made_pool.py" in held


def test_what_is_installed_has_its_command_and_its_configs(built, tmp_path):
    _, wheel, _ = built
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(pip, check=True)
    (tmp_path / "elsewhere").mkdir()

    def o1p(*argv: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, site / "bin" / "o1p", *argv]
        return subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)

    done = o1p("train", "--dry-run", "--problems.limit_train=4")
    assert done.returncode == 0 and "up to 1: 2 problems x m=8" in done.stdout, done.stderr
    unknown = o1p("plan", "--config=smollm")
    assert unknown.returncode == 2 and re.search(r"by name: embedded, marco_o1_7b, .*smollm2_135m", unknown.stderr)
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_what_the_package_imports_is_installed_with_it():
    """Also what is imported late, as the library is that loads the hub's problem sets; vLLM and PyTorch are extras."""
    [listed] = re.findall(r"^REQUIRES = \[(.*?)^\]", (ROOT / "setup.py").read_text(), re.DOTALL | re.MULTILINE)
    distributions = {
        module: {d.lower().replace("_", "-") for d in of} for module, of in packages_distributions().items()
    }
    present, todo, installed = set().union(*distributions.values()), re.findall(r'"([\w-]+)', listed), set()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in present - installed:
            installed.add(name)
            todo += [re.split(r"[^\w.-]", line)[0] for line in requires(name) or () if "extra ==" not in line]
    nodes = [node for file in (ROOT / "o1p_jax").rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = {module.split(".")[0] for module in modules} - {*sys.stdlib_module_names, "o1p_jax", "vllm", "torch"}
    lacking = [top for top in sorted(tops) if not distributions[top] & installed]
    assert "datasets" in tops and lacking == []
