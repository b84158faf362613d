"""Environments made from a target's own practice requests, without a language model and for any target."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "environment": ["PracticeEnvironment"],
        "ladder": ["RequestPractice"],
        "path": ["path"],
    },
)
