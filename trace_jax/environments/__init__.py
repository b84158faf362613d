"""Environments and targets: their protocols, the registry, the kit, and the built-in target."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["checks", "kit"],
    submod_attrs={
        "calls": ["call_error"],
        "protocol": [
            "Environment",
            "Labelled",
            "Observation",
            "Outcome",
            "Practice",
            "Practised",
            "Target",
            "Task",
            "seed_of",
        ],
        "registry": ["environment_factory", "load_environment", "load_target"],
        "settings": ["TargetSettings"],
        "source": ["Source", "load_source", "target_source"],
    },
)
