"""The floors of the house: imports go downward, and the host side works where JAX is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "o1p_jax"

FLOORS = [
    {"errors"},
    {"pods"},
    {"config", "records"},
    {"files", "progress", "launcher"},
    {"processes"},
    {"isolate", "collectives", "mesh", "rewards", "answers", "rollouts", "embedded.problems", "models.config",
     "models.splash"},
    {"samples"},
    {"claims", "problems", "grading", "batches", "checkpoint", "metrics", "optimizer", "models.attention",
     "models.rope", "sampling.base", "embedded.traces", "embedded.tokenizer", "models.families.common",
     "models.stream"},
    {"models.families." + name for name in ("gemma2", "gpt_oss", "granite", "mistral", "mixtral", "olmo2", "phi3",
                                            "qwen2", "qwen3_moe", "smollm3")} | {"models.experts"},
    {"models.families." + name for name in ("gemma3_text", "olmo3", "qwen3")} | {"models.layers"},
    {"models.families", "models.decoder", "annotate", "sampling", "sampling.server", "sampling.vllm_engine",
     "evaluate"},
    {"losses", "presample", "models.names", "table", "plots"},
    {"models.hf", "step", "reference", "report", "sampling.jax_decode", "roofline"},
    {"job", "train", "sampling.jax_engine", "embedded.pretrain", "runs"},
    {"export", "parity", "plan"},
    {"sweep"},
    {"pipeline", "cli"},
]  # fmt: skip
HOST_SIDE = ["launcher", "claims", "errors", "config", "records", "files", "progress", "isolate", "problems",
             "grading", "answers", "rewards", "rollouts", "samples", "annotate", "presample", "sampling",
             "sampling.base", "sampling.server", "cli", "sampling.vllm_engine"]  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and path.read_text().count("\n") > 5:
            found[name] = path
    return found


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_a_floor():
    assert set(modules()) == set().union(*FLOORS)


def test_imports_go_downward():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    upward = []
    for name, path in modules().items():
        for imported in imports(path, top_level_only=True):
            other = imported.removeprefix("o1p_jax.")
            if imported.startswith("o1p_jax.") and other in floor and floor[other] >= floor[name] and other != name:
                upward.append(f"{name} (floor {floor[name]}) imports {other} (floor {floor[other]})")
    assert not upward


@pytest.mark.parametrize("name", HOST_SIDE)
def test_host_side_imports_no_jax(name):
    code = f"import sys, o1p_jax.{name}; assert not {{'jax', 'flax', 'torch', 'vllm'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_files_stay_readable():
    long = {str(p): n for p in [*PACKAGE.rglob("*.py"), *(ROOT / "launch").glob("*.py")]
            if (n := p.read_text().count("\n")) > 350}  # fmt: skip
    assert not long


def test_launch_files_are_thin():
    for path in (ROOT / "launch").glob("*.py"):
        assert not {"jax", "flax", "numpy"} & imports(path, top_level_only=True), path
