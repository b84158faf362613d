"""Stage 1: trajectories → the capabilities that the agent lacks.

from trace_jax.analysis import analyse, make_analyst, markdown_table

found = analyse(trajectories, make_analyst("rules"), "runs/analysis")
print(markdown_table(found.report))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["importers"],
    submod_attrs={
        "analyst": ["Analyst", "make_analyst"],
        "rules_analyst": ["RulesAnalyst"],
        "select": ["Criteria"],
        "settings": ["AnalysisSettings", "SourceSettings"],
        "stage": ["Analysis", "analyse"],
        "table": ["markdown_table"],
    },
)
