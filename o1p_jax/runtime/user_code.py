"""A user's function comes from the user's own file, and is named on the command line as FILE.py:NAME."""

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from o1p_jax.runtime.errors import BadInput


@dataclass(frozen=True)
class UserFunction:
    """A function of a user's file. The file is read once, so that the digest is of the very source that runs."""

    flag: str
    """The flag that names the function, without its dashes: `method.reward`."""
    file: str
    """The file's path as the user gave it; a relative path counts from the folder that the command is run in."""
    name: str
    source: bytes

    @classmethod
    def read(cls, flag: str, where: str) -> "UserFunction":
        """Reads the function that `--flag=where` names. Raises BadInput unless `where` is FILE.py:NAME of a file."""
        file, name = split(flag, where)
        try:
            source = Path(file).read_bytes()
        except OSError as e:
            raise BadInput(
                f"{flag}={where}: {file} can't be read from {Path.cwd()} ({e.strerror}); name the file by its full "
                "path, or run the command in the folder that the path counts from"
            ) from None
        return cls(flag, file, name, source)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file's bytes, in hex."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def label(self) -> str:
        """FILE.py:NAME without the folder that the file lies in, for what is published."""
        return public_name(f"{self.file}:{self.name}")

    def load(self, arguments: int) -> Callable[..., Any]:
        """Returns the function itself, after running the file's code; a second call does not run the code again.

        Raises BadInput where the code raises, or the name is missing or not a function of so many `arguments`.
        """
        return _load(self, arguments)

    def error(self, fault: str) -> BadInput:
        """Returns the function's `fault` as an error of one line that names the flag, the file and the function."""
        return BadInput(f"{self.flag}={self.file}:{self.name}: {fault}")

    def raised(self, error: BaseException) -> str:
        """Returns, in words, what the user's code raised, and in which line of the file."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        if isinstance(error, SyntaxError) and error.filename == self.file:
            lines, error = [error.lineno], type(error)(error.msg)
        place = f" in line {lines[-1]}" if lines else ""
        said = " ".join(f"{type(error).__name__}{place}: {error}".split()).rstrip(": ")
        return said if len(said) <= 300 else f"{said[:300]}..."  # a parser's error may hold the whole text


def split(flag: str, where: str) -> tuple[str, str]:
    """Returns file and name of FILE.py:NAME. Raises BadInput that names the flag for anything else; opens nothing."""
    file, _, name = where.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise BadInput(f"{flag}={where}: must be FILE.py:NAME, a Python file and the name of a function in it")
    return file, name


def public_name(where: str) -> str:
    """Returns FILE.py:NAME without the folder that the file lies in."""
    return where.replace("\\", "/").rpartition("/")[2]


@lru_cache
def _load(wanted: UserFunction, arguments: int) -> Callable[..., Any]:
    module = ModuleType(f"o1p_user_{Path(wanted.file).stem}")
    module.__file__ = wanted.file
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up there
    try:
        exec(compile(wanted.source, wanted.file, "exec"), module.__dict__)
    except (Exception, SystemExit) as e:
        raise wanted.error(f"the file can't be run: {wanted.raised(e)}; correct the file") from e
    if not hasattr(module, wanted.name):
        there = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise wanted.error(f"the file has no {wanted.name}; its functions: {', '.join(there) or 'none'}")
    function = getattr(module, wanted.name)
    if not callable(function):
        raise wanted.error(f"{wanted.name} is a {type(function).__name__}; name a function")
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError as e:
        raise wanted.error(f"is called with {arguments} arguments, and its definition does not fit: {e}") from None
    except ValueError:  # some functions written in C tell nothing of their arguments
        pass
    return function
