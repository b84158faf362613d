"""The designer that is a language model: it writes modules on the kit, which only a sandbox runs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "designer": ["LanguageModelDesigner"],
        "form": ["Knob", "WrittenModule"],
        "module_check": ["module_faults"],
    },
)
