"""Inference engines: token ids in, token ids and log-probabilities out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chat": ["ChatEngine", "ChatReply"],
        "embedded.engine": ["EmbeddedEngine"],
        "protocol": ["Completion", "Engine", "Sampling"],
        "settings": ["EngineSettings"],
        "sglang.engine": ["SGLangEngine"],
    },
)
