"""The module makes a checked configuration of the command line."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import itertools
import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar
from unittest import mock

import tyro

from o1p_jax.config.saved import load_saved
from o1p_jax.config.text import flatten
from o1p_jax.config.tree import RunConfig
from o1p_jax.methods import METHODS, find
from o1p_jax.runtime.errors import BadInput, O1pError

PACKAGE = Path(__file__).parents[1]
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""The folder of the configs that are known by name: in the installed package, or beside the package in a checkout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of every command."""

    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Shows the traceback of a failure before the failure's one line."""


_METHOD = (
    "Short for --method.name: a method by its name, with the method's own defaults and flags (--help shows those of "
    f"the method that is given): {', '.join(METHODS)}."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(Flags):
    """The flags of a command on a run, beside the run's configuration, each field of which is a flag too."""

    config: str | None = None
    """A config's name, a Python file with a function config(), or the config.json of a run; left out: embedded."""
    method: Annotated[str | None, tyro.conf.arg(help=_METHOD)] = None


T = TypeVar("T")
F = TypeVar("F", bound=RunFlags)


def parse_run_config(argv: list[str]) -> RunConfig:
    """Returns the config of `parse_run`, for a program without flags of its own."""
    return parse_run(RunFlags, argv)[1]


def parse_run(flags: type[F], argv: list[str], about: str = "") -> tuple[F, RunConfig]:
    """Returns a command's own flags, and the config that `--config` names with the other flags put in.

    `--method`, short for `--method.name`, brings the defaults of the method's parameters, unless the config's method is
    the same one. `about` is what `--help` says of the command.
    """
    name, _ = take_flag(argv, "config")
    config = load_config("embedded" if name is None else name)
    method, _ = take_flag(argv, "method")
    also, argv = take_flag(argv, "method.name")
    for wanted in (also, method):
        if wanted is not None and wanted != config.method.name:
            config = dataclasses.replace(config, method=find(wanted).Params())
    part: Any = Annotated  # to a type checker, `flags` is a value
    both = dataclasses.make_dataclass(
        "Command",
        [
            ("own", part[flags, tyro.conf.arg(name="")]),
            ("run", part[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]),
        ],
    )
    names = [f.name for f in dataclasses.fields(flags)]
    found = _parse(both, argv, [*names, *flatten(config)], about, both(flags(), config))
    return found.own, found.run


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


def load_config(name: str | Path) -> RunConfig:
    """Reads a config: a name in `CONFIGS`, a Python file with a function `config()`, or a run folder's config.json."""
    path = Path(name)
    if not path.suffix and len(path.parts) == 1:
        path = CONFIGS / f"{name}.py"
    if path.suffix == ".json":
        config, commit = load_saved(path)
        return dataclasses.replace(config, revision=commit or config.revision)  # the weights that the run has
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.py")))
        raise BadInput(
            f"--config={name}: no such file; there are, by name: {known}; or give FILE.py or RUN/config.json"
        )
    spec = importlib.util.spec_from_file_location(f"o1p_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"--config={name}: must be a .py file with a function config(), or a run's config.json")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.config()
    except O1pError:
        raise
    except (Exception, SystemExit) as e:
        raise BadInput(f"--config={name}: the file can't be run: {type(e).__name__}: {e}; correct it") from e
    if not isinstance(config, RunConfig):
        raise BadInput(f"--config={name}: config() must return a RunConfig, it returned {type(config).__name__}")
    return config


def parse(cls: type[T], argv: list[str], about: str = "") -> T:
    """Returns a `cls` built from flags; `about` is what `--help` says of the command. See `_parse` for errors."""
    return _parse(cls, argv, _flags_of(cls), about)


_MAY_BE_EMPTY = ("--problems.system_prompt",)


def _parse(cls: type[T], argv: list[str], known: list[str], about: str, default: T | None = None) -> T:
    """Returns a `cls` built from flags, whose names are `known`.

    Raises BadInput that names the nearest right names of a mistyped flag, or the field of a bad value.
    """
    for argument in argv:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name not in (*known, "help"):
            meant = " or ".join(f"--{flag}" for flag in nearest(name, known))
            raise BadInput(f"--{name}: no such flag; " + (f"did you mean {meant}?" if meant else "--help has them all"))
    for argument, value in itertools.pairwise([*argv, "-"]):  # as --run="$RUN" where there is no RUN
        flag = argument.removesuffix("=")
        if (value == "" or argument == f"{flag}=") and flag.startswith("--") and flag not in _MAY_BE_EMPTY:
            raise BadInput(f"{flag}: the value is empty; give one, or leave the flag out")
    out, err = io.StringIO(), io.StringIO()
    wide = {} if {"--help", "-h"} & set(argv) else {"COLUMNS": "10000"}  # one line stays one
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ, wide):
            return tyro.cli(
                cls,
                args=argv,
                use_underscores=True,
                description="",
                config=(tyro.conf.AvoidSubcommands,),
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as e:
        if not e.code:  # --help
            print(f"{about}\n{out.getvalue()}", end="")
            raise
        raise BadInput(_one_line(err.getvalue() + out.getvalue())) from None


def _flags_of(cls: Any) -> list[str]:
    """Returns the names of the fields of `cls`, and of those of its parts, as flags have them."""
    names = []
    for field in dataclasses.fields(cls):
        part: Any = field.default_factory
        names += [f"{field.name}.{n}" for n in _flags_of(part)] if dataclasses.is_dataclass(part) else [field.name]
    return names


def nearest(name: str, known: list[str]) -> list[str]:
    """Returns the flags of `known` that the mistyped `name` most probably stands for: as near ones all, or none.

    Names are compared as wholes and by their last parts, where an abbreviation (lr), a beginning (learn) or a word
    (rate) is nearly as good as the part itself (learning_rate); what stands before the last part counts a little.
    """
    section, _, last = name.rpartition(".")

    def likeness(flag: str) -> float:
        of_section, _, part = flag.rpartition(".")
        words = part.split("_")
        short = len(last) > 1 and last == "".join(word[0] for word in words)
        begun = min(len(last), len(part)) > 2 and (part.startswith(last) or last.startswith(part))
        of_part = max(_ratio(last, part), 0.95 * (short or begun), 0.8 * (last in words))
        return max(
            _ratio(name.replace(".", "_"), flag.replace(".", "_")), 0.9 * of_part + 0.1 * _ratio(section, of_section)
        )

    found = {flag: likeness(flag) for flag in known}
    best = max(found.values())
    return [flag for flag in known if found[flag] > best - 0.01][:3] if best > 0.6 else []


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _one_line(boxed: str) -> str:
    """Returns, as one line, the message in tyro's box, which stands between the title's rule and the next."""
    lines = [line.strip("│|╭╰╮╯ ") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and set(line) <= set("─-")]
    start, end = ([*rules, len(lines)] if rules else [0, len(lines)])[:2]
    message = " ".join(" ".join(lines[start:end]).strip("─- ").split())
    return re.sub(r"^Error parsing [\w.]+: (?=[\w.]+=)", "", message).replace("Missing from -:", "missing")
