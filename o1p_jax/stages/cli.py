"""The module makes a checked configuration of the command line."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import os
import re
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import tyro

from o1p_jax.config.saved import load_saved
from o1p_jax.config.text import flatten
from o1p_jax.config.tree import RunConfig
from o1p_jax.methods import find
from o1p_jax.runtime.errors import BadInput, O1pError

T = TypeVar("T")

DEFAULT_CONFIG = Path(__file__).parents[2] / "configs" / "embedded.py"


def parse_run_config(argv: list[str]) -> RunConfig:
    """Returns the config that `--config` names (configs/embedded.py if none), with the other flags put in.

    `--method`, short for `--method.name`, brings the defaults of the method's parameters, unless the config's method is
    the same one.
    """
    path, rest = take_flag(argv, "config")
    config = load_config(Path(path) if path else DEFAULT_CONFIG)
    for flag in ("method.name", "method"):
        name, rest = take_flag(rest, flag)
        if name is not None and name != config.method.name:
            config = dataclasses.replace(config, method=find(name).Params())
    return parse(RunConfig, rest, default=config)


def take_flag(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Returns the value of `--name=value` or `--name value` (None: not given), and the arguments without that flag."""
    rest, value = [], None
    arguments = iter(argv)
    for argument in arguments:
        if argument.startswith(f"--{name}="):
            value = argument.split("=", 1)[1]
        elif argument == f"--{name}":
            value = next(arguments, None)
            if value is None:
                raise BadInput(f"--{name}: needs a value")
        else:
            rest.append(argument)
    return value, rest


def take_values(argv: list[str], name: str) -> tuple[list[str], list[str]]:
    """Returns the values of `--name a b c` or `--name=a`, up to the next flag, and the arguments without them."""
    values: list[str] = []
    rest: list[str] = []
    taking = False
    for argument in argv:
        if argument.startswith("--"):
            taking = argument.split("=")[0] == f"--{name}"
            if taking:
                values += argument.split("=", 1)[1:]
                continue
        (values if taking else rest).append(argument)
    return values, rest


def load_config(path: Path) -> RunConfig:
    """Reads a config file: Python with a function `config()`, or the config.json of a run folder."""
    if path.suffix == ".json":
        return load_saved(path)[0]
    if not path.is_file():
        there = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) or "no configs there"
        raise BadInput(f"--config={path}: no such file; there are: {there}")
    spec = importlib.util.spec_from_file_location(f"o1p_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"--config={path}: must be a .py file with a function config(), or a run's config.json")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.config()
    except O1pError:
        raise
    except (Exception, SystemExit) as e:
        raise BadInput(f"--config={path}: the file can't be run: {type(e).__name__}: {e}; correct it") from e
    if not isinstance(config, RunConfig):
        raise BadInput(f"--config={path}: config() must return a RunConfig, it returned {type(config).__name__}")
    return config


def parse(cls: type[T], argv: list[str], default: T | None = None) -> T:
    """Returns a `cls` built from flags.

    Raises BadInput that names the nearest right name of a mistyped flag, or the field of a bad value.
    """
    known = _flags_of(cls) if default is None else list(flatten(default))
    known += ["method"] if isinstance(default, RunConfig) else []  # for who mistypes it; `parse_run_config` took it out
    for argument in argv:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name not in (*known, "help"):
            raise BadInput(f"--{name}: no such flag; did you mean --{_nearest(name, known)}?")
    out, err = io.StringIO(), io.StringIO()
    wide = {} if {"--help", "-h"} & set(argv) else {"COLUMNS": "10000"}  # one line stays one
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ, wide):
            return tyro.cli(
                cls,
                args=argv,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as e:
        if not e.code:  # --help
            print(out.getvalue(), end="")
            raise
        raise BadInput(_one_line(err.getvalue() + out.getvalue())) from None


def _flags_of(cls: Any) -> list[str]:
    """Returns the names of the fields of `cls`, and of those of its parts, as flags have them."""
    names = []
    for field in dataclasses.fields(cls):
        part: Any = field.default_factory
        names += [f"{field.name}.{n}" for n in _flags_of(part)] if dataclasses.is_dataclass(part) else [field.name]
    return names


def _nearest(name: str, known: list[str]) -> str:
    """Returns the most similar of the `known` names, as a whole or by its last part."""

    def likeness(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a, b).ratio()

    return max(known, key=lambda k: max(likeness(name, k), likeness(name.split(".")[-1], k.split(".")[-1])))


def _one_line(boxed: str) -> str:
    """Returns, as one line, the message in tyro's box, which stands between the title's rule and the next."""
    lines = [line.strip("│|╭╰╮╯ ") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and set(line) <= set("─-")]
    start, end = ([*rules, len(lines)] if rules else [0, len(lines)])[:2]
    message = " ".join(" ".join(lines[start:end]).strip("─- ").split())
    return re.sub(r"^Error parsing [\w.]+: (?=[\w.]+=)", "", message).replace("Missing from -:", "missing")
