"""Tests marked core run once more, on a second Python with another JAX: some of a test's cases are enough there."""

from collections.abc import Iterable
from typing import Any

import pytest


def some_core(cases: Iterable[Any], core: Iterable[Any]) -> list[Any]:
    """Returns the cases for `parametrize`, those in `core` marked so; a tuple is a case of several values."""
    marked = list(core)
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.core if case in marked else ())
        for case in cases
    ]
