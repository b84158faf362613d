"""The tiny agent of the quick start, trained from scratch on a target (helpdesk) by an imperfect demonstrator."""

from ml_collections import ConfigDict

from trace_jax.environments.settings import TargetSettings
from trace_jax.run_settings import as_section


def get_config() -> ConfigDict:
    """Every field of ``launch.tiny_agent``, locked."""
    config = ConfigDict()
    config.target = as_section(TargetSettings)  # environment: a target that brings practice requests
    config.seed = 0  # int: of the initial weights and the demonstrations
    config.vocab_size = 768  # int, tokens at most
    config.hidden_size = 128  # int: D
    config.num_layers = 4  # int: L
    config.num_heads = 4  # int: N
    config.num_kv_heads = 2  # int: K
    config.intermediate_size = 352  # int: F
    # Skills come first, then habits. From wrong paths alone the agent would never learn the right ones.
    config.skills = 28000  # int, tickets of one request, every path right
    config.habits = (20000, 12000)  # tuple of int, tickets of one request, of two, …
    config.tickets = 12000  # int, tickets drawn like the target's, mixed with the habits'
    config.wrong_share = 0.75  # float: share of these tickets that take the wrong path of a lacking capability
    config.learning_rate = 2e-3  # float: of AdamW
    config.rows = 16  # int, tickets a step
    return config.lock()
