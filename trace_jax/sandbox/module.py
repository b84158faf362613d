"""A Python module that a language model wrote, and what of it is to be run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trace_jax.errors import UserError

LONGEST_SOURCE = 256 << 10  # bytes


@dataclass(frozen=True)
class SandboxedModule:
    """Source of a module, and the class or function in it that makes environments from ``parameters``.

    Raises UserError for source that is too long or cannot be written as UTF-8, for a name that is none, and for
    parameters that are no JSON values.
    """

    source: str
    entry: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.entry.isidentifier():
            raise UserError(f"entry {self.entry!r} of a generated module: give the name of a class or function in it")
        try:
            size = len(self.source.encode())
            json.dumps(dict(self.parameters), allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"generated module {self.entry!r}: {error}: use UTF-8 text and JSON parameters") from None
        if size > LONGEST_SOURCE:
            raise UserError(
                f"generated module {self.entry!r}: {size} bytes of source, at most {LONGEST_SOURCE} are run"
            )

    @property
    def version(self) -> str:
        """What names this source in trajectories."""
        return f"sandbox:{self.entry}@{hashlib.sha256(self.source.encode()).hexdigest()[:12]}"
