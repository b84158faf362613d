"""Checks whether a target keeps the protocol, before any model plays it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "finding": ["Finding"],
        "quick": ["quick_findings", "require_sound"],
        "target": ["check_all"],
    },
)
