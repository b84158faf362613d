"""Python reads this when it starts with this directory on PYTHONPATH, as the programs that tests start do.

It hides torch, which only the tests need: transformers would import it, for five seconds of each program.
"""

import sys
from importlib.machinery import PathFinder


class WithoutTorch(PathFinder):
    """Finds every module on ``sys.path`` except torch."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
