"""The method: failed trajectories in, a routed set of adapters out, on one work directory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "method": ["Pipeline", "Trained", "run_method"],
        "jobs": ["adapter_job", "target_job"],
        "stage_times": ["StageTimes"],
    },
)
