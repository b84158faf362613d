"""A real model learns: SmolLM2-135M-Instruct at the desk of one-request tickets, on two CPU cores."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Deltas over ``base``, and the warm start."""
    config = base.get_config()
    config.base.path = "runs/smollm2/model"  # made if it is missing
    config.target.environment = "helpdesk_short"
    config.target.train_tasks = 2000
    config.target.held_out_tasks = 140
    config.engine.slots = 48
    config.engine.capacity = 384
    config.rollout.max_turns = 6
    config.rollout.max_episode_tokens = 384
    config.rollout.max_turn_tokens = 40
    config.rollout.concurrency = 48
    config.evaluation.trials = 2
    config.evaluation.temperature = 1.0
    config.training.max_steps = 60
    config.training.groups_per_step = 8
    config.training.num_generations = 6
    config.training.max_recollections = 0
    config.training.learning_rate = 2e-4
    config.training.warmup_steps = 5
    config.training.std_floor = 0.2
    config.training.rank = 16
    config.training.alpha = 32.0
    config.training.micro_batch_tokens = 1536
    config.training.row_tokens = 768  # room for a group of 6 with its prompt; two shapes to compile
    with config.unlocked():
        warm = config.warm_start = ConfigDict()
        warm.demonstrations = 96  # int, practice tickets that are shown
        warm.passes = 1  # int, times that all of them are shown
        warm.rows = 4  # int, demonstrations a step
        warm.learning_rate = 1e-4  # float: of AdamW on all weights
    return config.lock()
