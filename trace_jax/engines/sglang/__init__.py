"""The SGLang engine: a pool of real servers that all hold the same adapters."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engine": ["SGLangEngine"],
        "server": ["Refused", "SGLangServer", "ServerBusy", "ServerFailed", "ServerInfo", "ServerTimeout"],
    },
)
