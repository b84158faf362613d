"""Conversations to tokens and back: a renderer for each model family, tool calls, and small tokenizers.

``load_renderer`` finds the renderer of a model and compares it with the model's own chat template.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calls": ["read_arguments", "read_object", "text_of"],
        "chatml": ["ChatMLRenderer"],
        "codec": ["RenderError"],
        "loading": ["load_renderer"],
        "qwen3": ["Qwen3Renderer"],
        "renderer": ["Renderer"],
        "tiny": ["TinyRenderer"],
        "tokenizer": ["save_tokenizer", "train_tokenizer"],
    },
)
