"""The OpenAI-compatible server in front of the engines. Each conversation is routed once and keeps its adapters."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["Adapters", "Held"],
        "app": ["make_app"],
        "backend": ["Answer", "Backend"],
        "connections": ["GuardedProtocol", "guarded", "listen"],
        "decisions": ["DecisionLog"],
        "embedded": ["EmbeddedBackend"],
        "engine": ["EngineThread"],
        "errors": ["ApiError"],
        "gateway": ["Gateway"],
        "keys": ["Keys", "read_keys"],
        "labels": ["ServerReader"],
        "limits": ["Limits"],
        "metrics": ["Metrics"],
        "models": ["Models"],
        "pinning": ["Pins"],
        "prompt_limit": ["characters_per_token"],
        "recorder": ["Recorder"],
        "request": ["CompletionRequest"],
        "routes": ["Conversations"],
        "sglang": ["SGLangBackend"],
        "shutdown": ["DrainingServer"],
    },
)
