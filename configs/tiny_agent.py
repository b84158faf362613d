"""The tiny agent of the quick start: taught helpdesk from scratch by an imperfect demonstrator."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every field of ``launch.tiny_agent``, locked."""
    config = ConfigDict()
    config.seed = 0  # int: of the initial weights and the demonstrations
    config.vocab_size = 768  # int, tokens at most
    config.hidden_size = 128  # int: D
    config.num_layers = 4  # int: L
    config.num_heads = 4  # int: N
    config.num_kv_heads = 2  # int: K
    config.intermediate_size = 352  # int: F
    # tuple of (requests a ticket, tickets, wrong_share), taken in turn: the skills first, then the habits
    config.lessons = ((1, 40000, 0.0), (1, 12000, 0.75), (2, 8000, 0.75))
    config.tickets = 4800  # int, tickets drawn like the target's: what is shown last
    config.wrong_share = 0.75  # float: how often the demonstrator then takes the wrong path where it lacks a capability
    config.learning_rate = 2e-3  # float: of AdamW
    config.rows = 16  # int, tickets a step
    return config.lock()
