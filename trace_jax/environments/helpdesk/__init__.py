"""Helpdesk, the built-in target: the desk of a small shop, with several turns and tools."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "desk": ["Desk"],
        "short": ["ShortHelpdesk"],
        "target": ["Helpdesk"],
    },
)
