"""The embedded engine: our decoder with a key/value cache and continuous batching, in the caller's process."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engine": ["EmbeddedEngine", "EngineStats"],
    },
)
