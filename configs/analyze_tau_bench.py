"""Analysis of a τ-bench result file: --config.source.path=FILE."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Ten label runs of a τ-bench file that gpt-4o produced."""
    config = base.get_config()
    config.analysis.runs = 10
    config.source.format = "tau_bench"
    config.source.domain = "airline"
    config.source.model = "gpt-4o"
    return config
