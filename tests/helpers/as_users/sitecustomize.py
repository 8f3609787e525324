"""Imported by every Python that starts with this folder on its path: PyTorch counts as not installed there.

`transformers` imports it where it finds it, for two or three seconds of each start, and users without vLLM have none.
"""

import sys
from importlib.machinery import PathFinder


class WithoutTorch(PathFinder):
    """Finds what is on the path, but for PyTorch."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


sys.meta_path[:] = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
