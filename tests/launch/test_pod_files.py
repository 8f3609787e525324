"""The ready-made launch files: linted, and every command in them parsed as the command itself would."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from o1p_jax.config.chips import Topology
from o1p_jax.runtime.place import find_place
from o1p_jax.stages import cli

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch" / "pods").iterdir())
SCRIPTS = [path for path in FILES if path.suffix != ".yaml"]


def linter(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_there_is_one_for_each_kind_of_pod():
    assert [path.name for path in FILES] == [
        "jobset.yaml", "skypilot.yaml", "slurm.sbatch", "slurm_presample.sbatch", "tpu_queued_resource.sh",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_linted(path, tmp_path):
    if path in SCRIPTS:
        subprocess.run([linter("shellcheck"), path], check=True)
        return
    subprocess.run([linter("yamllint"), "--strict", path], cwd=ROOT, check=True)
    for name in ("setup", "run"):
        if script := yaml.safe_load(path.read_text()).get(name):
            (tmp_path / name).write_text(script)
            subprocess.run([linter("shellcheck"), "--shell=bash", tmp_path / name], check=True)


def commands(path: Path) -> list[list[str]]:
    """The arguments of each launch command in the file, shell variables left as they are."""
    if path.name == "jobset.yaml":
        [job] = yaml.safe_load(path.read_text())["spec"]["replicatedJobs"]
        [container] = job["template"]["spec"]["template"]["spec"]["containers"]
        return [container["command"][1:]]
    lines = path.read_text().replace("\\\n", " ").splitlines()
    found = [line.split("python ", 1)[1] for line in lines if re.search(r"python launch/\w+\.py", line)]
    return [re.findall(r'(?:[^\s"]|"(?:\\.|\$\([^)]*\)|[^"])*")+', line) for line in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_commands_have_a_config_and_flags_that_exist(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert commands(path)
    for script, *argv in commands(path):
        assert (ROOT / script).is_file()
        places = {"--coordinator": "a:1", "--processes": "8", "--process": "0"}
        argv = [f"{name}={places[name]}" if (name := a.split("=")[0]) in places else a for a in argv]
        _, rest = find_place(argv)
        assert cli.parse_run_config(rest).run.split("/")[-1] in ("qwq_32b", "r1_distill_qwen_7b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_vllm_has_an_environment_which_the_file_makes_or_tells_to_make(path):
    """The configs sample with vLLM, which nothing else installs; other files refer to slurm.sbatch."""
    [argv] = commands(path)
    [python] = [a.partition("=")[2] for a in argv if a.startswith("--sampling.vllm.python=")]
    made = path.read_text() + (ROOT / "launch/pods/slurm.sbatch").read_text() * ("slurm.sbatch" in path.read_text())
    environment = "$HOME/venv-vllm/bin" if python == "./vllm_python" else str(Path(python).parent)
    assert re.search(rf"{re.escape(environment)}/pip\"? install .*vllm", made)
    assert re.search(r"\.venv/bin/pip install .*-e '\.\[(cuda|tpu)\]'", made)


def test_vllms_environment_on_a_tpu_has_what_sampling_imports():
    code = (
        "import sys, importlib.metadata; before = {*sys.modules};"
        "import o1p_jax.stages.presample, o1p_jax.sampling.vllm, o1p_jax.data.prompts;"
        "found = importlib.metadata.packages_distributions();"
        "print(*{name for module in {*sys.modules} - before for name in found.get(module, ())})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    [installed] = re.findall(
        r'venv-vllm/bin/pip" install --quiet (vllm-tpu .*)', (ROOT / "launch/pods/tpu_queued_resource.sh").read_text()
    )
    optional = {"cloudpickle", "o1p_jax"}  # pyarrow looks for the one
    assert set(done.stdout.split()) - optional - {"numpy"} <= set(installed.split())


def test_the_jobset_has_a_process_for_each_pod_and_names_the_first():
    jobset = yaml.safe_load((ROOT / "launch" / "pods" / "jobset.yaml").read_text())
    [job] = jobset["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    [container] = pods["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert int(variables["JAX_NUM_PROCESSES"]) == pods["completions"] == pods["parallelism"]
    first = f"{jobset['metadata']['name']}-{job['name']}-0-0.{jobset['metadata']['name']}"
    assert variables["JAX_COORDINATOR_ADDRESS"].split(":")[0] == first
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert Topology.parse(f"h100:{pods['completions']}x{gpus}").devices == 64  # what configs/qwq_32b.py asks for


@pytest.mark.parametrize("after", ["0", "1", "75"])
def test_slurm_puts_a_job_that_was_stopped_into_the_queue_again(after, tmp_path):
    for name, line in (("srun", f"exit {after}"), ("scontrol", f'echo "$@" > {tmp_path}/requeued')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, ROOT / "launch" / "pods" / "slurm.sbatch"], env=environment, check=False)
    assert done.returncode == int(after)
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else None) == ("requeue 7\n" if after == "75" else None)
