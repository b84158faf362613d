"""The sandbox: code that a language model wrote runs here and nowhere else."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "environment": ["SandboxedEnvironment", "SandboxedFactory"],
        "host": ["SandboxHost"],
        "module": ["SandboxedModule"],
        "sandbox": ["Sandbox", "shared_sandbox"],
        "settings": ["SandboxSettings"],
    },
)
