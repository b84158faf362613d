"""The hosts of environments: this process, a pool of worker processes, and servers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["EnvironmentFault"],
        "in_process": ["InProcess"],
        "opened": ["open_target"],
        "pool": ["Pool", "PoolHost"],
        "child": ["WorkerPlan"],
        "remote_target": ["RemoteTarget"],
    },
)
