"""Stage 4: routers, which choose the adapters of a conversation, and the table that they choose from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["OracleRouter", "RandomRouter"],
        "classifier": ["ClassifierRouter"],
        "features": ["PromptReader"],
        "gate": ["Gate", "GateRouter", "load_gate", "save_gate"],
        "gate_training": ["GateReport", "LabelledPrompt", "train_gate"],
        "load": ["load_router"],
        "merge": ["materialise"],
        "router": ["RouteRequest", "Router"],
        "select": ["Best", "Nucleus", "SelectionPolicy", "Together", "choices", "make_policy"],
        "settings": ["RoutingSettings"],
        "table": ["build_table"],
    },
)
