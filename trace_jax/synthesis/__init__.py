"""Stage 2: a capability becomes a validated, calibrated environment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["Judgement", "Window", "calibrate", "judge"],
        "designer": ["Brief", "DesignError", "Designer", "GeneratedEnvironment", "make_brief"],
        "gates": ["run_gates"],
        "isolated": ["run_isolated"],
        "rules": ["RulesDesigner", "make_designer"],
        "settings": ["SynthesisSettings"],
        "stage": ["synthesise"],
    },
)
