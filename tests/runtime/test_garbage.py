"""A command and its stages' children look for garbage rarely; who only imports the package decides for himself."""

import subprocess
import sys

from o1p_jax.runtime.children import run_child

TOLD = "lambda argv: print(__import__('gc').get_threshold()[0])"


def printed(program: str) -> int:
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def test_a_command_looks_rarely():
    assert printed(f"from o1p_jax.runtime.entry import main; main({TOLD})") == 50_000
    assert printed(f"import o1p_jax.runtime.entry; ({TOLD})([])") == printed(f"({TOLD})([])") < 50_000


def test_a_child_looks_rarely(tmp_path, monkeypatch):
    text = "from o1p_jax.runtime.children import child_main\nimport gc\n"
    text += "child_main(lambda job: open(job, 'w').write(str(gc.get_threshold()[0])))\n"
    (tmp_path / "a_child.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run_child("a_child", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "50000"
