"""The tiny agent of the calendar: it books late where early is meant, cancels what it must not, and does not count."""

from ml_collections import ConfigDict

from configs import tiny_agent


def get_config() -> ConfigDict:
    """Deltas over ``tiny_agent``."""
    config = tiny_agent.get_config()
    config.target.environment = "examples.calendar:calendar"
    config.hidden_size = 96
    config.num_layers = 3
    config.intermediate_size = 256
    config.skills = 8000
    config.habits = (2500, 2000)
    config.tickets = 3500
    return config
