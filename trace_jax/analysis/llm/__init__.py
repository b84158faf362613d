"""The analyst that asks a language model: it reads compacted episodes, proposes capabilities and labels them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"analyst": ["LanguageModelAnalyst", "open_analyst"], "estimate": ["estimate", "Estimate"]},
)
