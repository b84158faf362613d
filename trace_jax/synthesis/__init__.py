"""Stage 2: a capability becomes a validated, calibrated environment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["Judgement", "Window", "calibrate", "judge"],
        "designer": [
            "Brief",
            "DesignError",
            "Designer",
            "GeneratedEnvironment",
            "NoDesign",
            "ParallelDesigner",
            "make_brief",
        ],
        "examples": ["Examples"],
        "differential": ["VariedRollout", "differential"],
        "disjoint": ["Conversations", "conversations"],
        "gates": ["run_gates"],
        "isolated": ["run_isolated"],
        "designers": ["make_designer"],
        "rules": ["RulesDesigner"],
        "settings": ["SynthesisSettings"],
        "stage": ["Postponed", "synthesise"],
        "trials": ["Rollout", "ServerAway"],
    },
)
