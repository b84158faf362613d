"""Settings of the sandbox."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SandboxSettings(Settings):
    """What environments that a language model wrote may use, and how long they may take."""

    section: ClassVar = "sandbox"
    memory_mib: int = setting(512, "MiB of address space of a sandboxed process", ge=192)
    step_seconds: float = setting(5.0, "seconds of one call of a sandboxed environment", gt=0)
    start_seconds: float = setting(20.0, "seconds in which a module has been loaded", gt=0)
    processes: int = setting(2, "sandboxed processes of a design that is rolled out", ge=1)
    allow_unsandboxed: bool = setting(
        False, "run generated code WITHOUT a sandbox where this machine offers none: it can then do all that you can"
    )
