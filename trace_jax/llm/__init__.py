"""A client for language models behind OpenAI-compatible endpoints: one request in, one answer out, what it cost."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answer": ["Answer", "FunctionCall", "TokenUsage"],
        "blocking": ["BlockingLanguageModel"],
        "errors": ["EndpointRefused", "EndpointUnreachable", "LLMError"],
        "model": ["LanguageModel"],
        "settings": ["LanguageModelSettings"],
        "spending": ["Spending"],
    },
)
