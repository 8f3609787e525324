"""Bad inputs: what no command can work with is refused in one line, with nothing done."""

import contextlib
import dataclasses
import io
import json
import os
import random
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from o1p_jax.config.tree import RunConfig
from tests.torture.job import ROOT, Home


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Gives one bad input to a command."""
    folder = home.folder / f"input-{number}"
    folder.mkdir()
    command = rng.choice(KINDS)(home, folder, rng)
    what = f"{command[0]} {command[-1]:.200}"
    before = sorted(folder.rglob("*"))
    code, text = run(command, folder)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code in (2, 65), f"{what}: exit code {code}: {text[-500:]}"
    assert len(errors) == 1 and "internal error" not in text and "Traceback" not in text, f"{what}: {text[-800:]}"
    assert sorted(folder.rglob("*")) == before, f"{what}: something was written"


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Runs a command of launch/ in this process, with `folder` as working folder; returns its exit code and stderr."""
    os.chdir(folder)
    sys.argv = command
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(ROOT / "launch" / command[0]), run_name="__main__")
    except SystemExit as e:
        return int(e.code or 0), said.getvalue()
    return 0, said.getvalue()


def job(home: Home, folder: Path, *flags: str) -> list[str]:
    """Returns the command line of the whole job with these flags in place of its own."""
    names = {flag.split("=")[0] for flag in flags}
    return [part for part in home.job(folder / "run") if part.split("=")[0] not in names] + list(flags)


def hints(config: type, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields each field's dotted name and the types or literals that it may have."""
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        if isinstance(field.default_factory, type) and dataclasses.is_dataclass(field.default_factory):
            yield from hints(field.default_factory, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, get_args(types[field.name]) or (types[field.name],)


def bad_values(kinds: tuple[Any, ...]) -> list[str]:
    """Returns values that no field of these types can have."""
    if float in kinds:
        return ["nan", "-1", "-inf", "many", "1,5", "-1e300"]
    if bool in kinds:
        return ["2", "maybe", "-"]
    if int in kinds:
        return ["-1", "1.5", "nan", "inf", "many", "1e3", "0x10", "-9999999999", "9" * 5000]
    return ["other", "-1", ""] if all(isinstance(kind, str) for kind in kinds) else []


FIELDS = {name: values for name, kinds in hints(RunConfig) if (values := bad_values(kinds))}
FIELDS |= {name: ["nan", "many", "1,5"] for name in ("method.reward_low", "method.reward_high")}  # may be below 0
MESHES = ("0x1", "1x", "x", "-1x-1", "axb", "8", "1x1x1x1x1", "data:2,data:2", "fsdp:1.5", "speed:2", "1x3", "64x1", "")


def bad_value(home: Home, folder: Path, rng: random.Random) -> list[str]:
    name = rng.choice([*FIELDS, "mesh", "mesh"])
    return job(home, folder, f"--{name}={rng.choice(MESHES if name == 'mesh' else FIELDS[name])}")


def bad_flag(home: Home, folder: Path, rng: random.Random) -> list[str]:
    name = rng.choice(list(FIELDS))
    place = rng.randrange(len(name))
    wrong = rng.choice([name[:place] + name[place + 1 :] + "x", name + "s", name.upper(), "no.such.flag", "", "=", "é"])
    return job(home, folder, rng.choice([f"--{wrong}=1", f"--{wrong}", f"-{wrong}", f"{name}=1", "train", f"--{name}"]))


def places(home: Home, folder: Path) -> dict[str, str]:
    """Returns paths where no command finds what it needs, or may write."""
    (folder / "file").write_text("a file")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("mine")
    (folder / "circle").symlink_to("circle")
    return {
        "a file": str(folder / "file"),
        "below a file": str(folder / "file" / "x"),
        "somebody's folder": str(folder / "mine"),
        "a long name": str(folder / ("n" * 300)),
        "a long path": str(folder / "/".join(["n" * 200] * 30)),
        "a link to itself": str(folder / "circle"),
        "the model": str(home.model),
        "in the model": str(home.model / "x"),
    }


def bad_place_to_write(home: Home, folder: Path, rng: random.Random) -> list[str]:
    path = rng.choice(list(places(home, folder).values()))
    return rng.choice([
        job(home, folder, f"--run={path}"),
        ["presample.py", *job(home, folder, f"--pool={path}")[1:]],
        ["export.py", f"--run={home.run}", f"--out={path}"],
        ["import_pool.py", "--rollouts", str(home.rollouts), f"--model={home.model}", f"--pool={path}"],
        ["export_pool.py", f"--run={home.run}", f"--out={path}"],
    ])  # fmt: skip


def bad_place_to_read(home: Home, folder: Path, rng: random.Random) -> list[str]:
    found = {**places(home, folder), "nothing": str(folder / "nothing"), "no name": ""}
    del found["the model"]
    path = rng.choice(list(found.values()))
    return rng.choice([
        job(home, folder, f"--model={path}"),
        job(home, folder, f"--problems.train={path}"),
        job(home, folder, f"--config={path}"),
        job(home, folder, f"--grading.grader={path}:f"),
        job(home, folder, f"--method.reward={path}"),
        ["export.py", f"--run={path}", f"--out={folder / 'out'}"],
        ["export.py", f"--run={home.run}", f"--out={folder / 'out'}", f"--step={rng.choice([-1, 0, 7, 10**9])}"],
        ["evaluate.py", "--models", path, *job(home, folder)[2:], f"--out={folder / 'out'}"],
        ["verify.py", rng.choice([f"--run={path}", f"--pool={path}", f"--model={path}"])],
        ["import_pool.py", "--rollouts", path, f"--model={home.model}", f"--pool={folder / 'pool'}"],
        ["export_pool.py", f"--pool={path}", f"--out={folder / 'out'}"],
    ])  # fmt: skip


LINES = (
    "", "\n\n", "{", "[]", "3", "null", '"text"', "{}", '{"problem": "1+1?"}', '{"answer": "2"}',
    '{"problem": "", "answer": "2"}', '{"problem": "1+1?", "answer": ""}', '{"problem": "1+1?", "answer": null}',
    '{"problem": NaN, "answer": "2"}', '{"problem": "1+1?", "answer": NaN}',
    '{"problem": ["1+1?"], "answer": {"a": 2}}', '{"problem": "1+1?", "answer": "#### "}',
    '{"problem": true, "answer": "2"}', '{"problem": "' + "x" * 5000 + '", "answer": "2"}', "[" * 100000,
    '{"a":' * 50000, '{"problem": "1+1?", "answer": ' + "9" * 5000 + "e", '{"problem": "\\ud800", "answer": {}}',
    "\x00\x01", "PAR1", "<html>",
)  # fmt: skip
TABLES: tuple[dict[str, list], ...] = (
    {"problem": []},
    {"problem": [], "answer": []},
    {"problem": ["1+1?"], "gold": ["2"]},
    {"problem": [None], "answer": ["2"]},
    {"problem": ["1+1?"], "answer": [float("nan")]},
    {"problem": [b"\xff"], "answer": [b"\xfe"]},
    {"problem": [{"a": 1}], "answer": [[1]]},
)


def bad_problems(home: Home, folder: Path, rng: random.Random) -> list[str]:
    if rng.random() < 0.7:
        path = folder / "problems.jsonl"
        path.write_text(rng.choice(LINES), errors="surrogatepass")
    else:
        path = folder / "problems.parquet"
        pq.write_table(pa.table(rng.choice(TABLES)), path)
    flag = rng.choice(["--problems.train", "--problems.test"])
    other = ["import_pool.py", "--rollouts", str(path), f"--model={home.model}", f"--pool={folder / 'pool'}"]
    return rng.choice([job(home, folder, f"{flag}={path}"), other])


CHANGES: tuple[dict[str, Any], ...] = (
    {"model_type": "rwkv"}, {"model_type": None}, {"model_type": 3}, {"hidden_size": -1}, {"hidden_size": 33},
    {"hidden_size": "big"}, {"num_hidden_layers": 3}, {"num_hidden_layers": 0}, {"vocab_size": 10},
    {"vocab_size": None}, {"head_dim": 7}, {"head_dim": 0}, {"num_attention_heads": 0}, {"num_attention_heads": 3},
    {"rms_norm_eps": "x"}, {"rope_theta": None}, {"rope_theta": "nan"}, {"rope_theta": -1.0},
    {"rms_norm_eps": float("inf")},
    {"rope_scaling": {"rope_type": "other", "factor": 2}}, {"hidden_act": "snake"},
    {"quantization_config": {"bits": 4}}, {"auto_map": {"AutoModel": "x.Y"}}, {"intermediate_size": 49},
    {"tie_word_embeddings": False}, {"num_key_value_heads": 3},
)  # fmt: skip


def bad_model(home: Home, folder: Path, rng: random.Random) -> list[str]:
    model = folder / "model"
    shutil.copytree(home.model, model)
    if rng.random() < 0.6:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | rng.choice(CHANGES)))
    else:
        name = rng.choice(["config.json", "tokenizer.json", "model.safetensors"])
        if rng.random() < 0.4:
            (model / name).unlink()
        else:
            (model / name).write_text(rng.choice(["", "[]", "{}", "null", "3", "{", "[" * 100000, "\x00"]))
    return job(home, folder, f"--model={model}")


PROGRAMS = (
    "", "def config(:", "config = 3", "def config(): return None", "def config(): return {}", "def config(): 1 / 0",
    "1 / 0", "import no_such_module", "import sys; sys.exit(3)", "def config(): raise SystemExit",
    "def config(x): pass", "\x00",
    "def config(): return config()",
    "from o1p_jax.config.tree import RunConfig\ndef config(): return RunConfig(speed=3)", "{}",
)  # fmt: skip


def bad_config(home: Home, folder: Path, rng: random.Random) -> list[str]:
    path = folder / "config.py"
    path.write_text(rng.choice(PROGRAMS))
    if rng.random() < 0.3:
        path = folder / "config.json"
        values = json.loads((home.run / "config.json").read_text())
        name = rng.choice(list(values))
        values[name] = rng.choice([None, [], {}, "text", -1, True, {"other": 1}, [[1]]])
        path.write_text(rng.choice([json.dumps(values | {"other": 1}), json.dumps([values]), "", "[" * 100000, "{}"]))
    return job(home, folder, f"--config={path}")


KINDS: list[Callable[[Home, Path, random.Random], list[str]]] = [
    bad_value, bad_value, bad_flag, bad_place_to_write, bad_place_to_read, bad_problems, bad_model, bad_config,
]  # fmt: skip
