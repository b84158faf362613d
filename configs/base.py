"""Every setting of a run with its default. A run is a short delta over this:

    from configs import base

    def get_config():
        config = base.get_config()
        config.training.learning_rate = 3e-4
        return config

The settings are declared once, each with its type, unit and meaning, in the ``settings.py`` of the package that uses
them (``trace_jax/*/settings.py``); ``--help`` of every program prints them. The config is locked: unknown keys are
refused.
"""

from ml_collections import ConfigDict

from trace_jax.planning.settings import PlanSettings
from trace_jax.run_settings import as_config


def get_config() -> ConfigDict:
    """The defaults, locked."""
    return as_config(PlanSettings)
