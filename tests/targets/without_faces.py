"""Importing this makes our modules importable in a benchmark's Python, which lacks what the faces of packages need."""

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for _name in ("trace_jax.contract", "trace_jax.environments"):
    _face = ModuleType(_name)
    _face.__path__ = [str(ROOT / _name.replace(".", "/"))]
    sys.modules[_name] = _face
