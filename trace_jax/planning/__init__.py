"""Plans a program for chips that this machine does not have: memory, work and time, from its compiled form.

from trace_jax.planning import Run, parse_topology, plan, prepare_environment, training_job

prepare_environment()  # before JAX is imported
report = plan(training_job(run, topology := parse_topology("v5p-64")), topology)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chips": ["CHIPS", "Chip", "find_chip"],
        "compile": ["Job", "Program"],
        "devices": ["describe_devices"],
        "environment": ["prepare_environment"],
        "job": ["Decoding", "Run", "training_job"],
        "planner": ["plan"],
        "report": ["PlanReport"],
        "settings": ["PlanSettings"],
        "table": ["print_plan", "print_ranking"],
        "topology": ["Topology", "parse_topology"],
    },
)
