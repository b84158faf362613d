"""Files of models and adapters: Hugging Face (``config.json``, safetensors), PEFT and GGUF, checked when read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config_json": ["config_from_json", "config_to_json", "read_config"],
        "gguf": ["convert"],
        "huggingface": ["load", "revision", "save"],
        "json_files": ["read_json"],
        "merging": ["merge_adapter"],
        "peft": ["load_peft", "recorded_base", "save_peft"],
    },
)
