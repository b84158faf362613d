"""Environments and targets: their protocols, the registry, the kit, and the built-in target."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["adapters", "checks", "hosts", "kit"],
    submod_attrs={
        "calls": ["call_error"],
        "episode_clock": ["off_the_clock"],
        "host": ["Episode", "Host", "host_of"],
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
