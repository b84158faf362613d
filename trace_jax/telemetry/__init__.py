"""What a run reports: metrics, progress, compilations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compiles": ["CompileLog", "enable_compilation_cache"],
        "metrics": ["MetricsWriter", "read_metrics"],
        "progress": ["Progress"],
        "settings": ["TelemetrySettings"],
    },
)
