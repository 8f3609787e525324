"""Imported by every Python that starts with this folder on its path: PyTorch counts as not installed there.

`transformers` imports it where it finds it, for two or three seconds of each start, and users without vLLM have none.
PyArrow imports pandas where it finds it, for another second, and does nothing with it; `datasets`, which needs it,
still gets it.
"""

import sys
from importlib.machinery import PathFinder


class Fewer(PathFinder):
    """Finds what is on the path, but for PyTorch, and for pandas before `datasets` asks for it."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname == "torch" or (fullname == "pandas" and "datasets" not in sys.modules):
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[:] = [Fewer if finder is PathFinder else finder for finder in sys.meta_path]
