"""The whole method on a laptop CPU. The tiny agent learns the capabilities that it lacks at the helpdesk."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Deltas over ``base``."""
    config = base.get_config()
    config.base.path = "assets/tiny_agent"
    config.rollout.trials = 2
    config.rollout.max_turns = 24
    config.rollout.max_turn_tokens = 64
    config.synthesis.calibration_groups = 12
    config.synthesis.max_rounds = 4  # the seeds of a calibration derive from it
    config.routing.policy = "together"
    config.routing.prompts = 192
    config.training.max_steps = 12
    config.training.stop_reward = 0.9
    config.training.groups_per_step = 4
    config.training.num_generations = 8
    config.training.num_iterations = 3
    config.training.learning_rate = 3e-3
    config.training.beta = 0.02
    config.training.rank = 8
    config.training.alpha = 16.0
    config.training.micro_batch_tokens = 2048
    config.training.row_tokens = 256
    return config.lock()
