"""SmolLM2-135M-Instruct on helpdesk tickets with one request each, on two CPU cores."""

from ml_collections import ConfigDict

from launch.warm_start import WarmStartSettings
from trace_jax.run_settings import as_config


def get_config() -> ConfigDict:
    """Deltas over the defaults, which include those of the warm start."""
    config = as_config(WarmStartSettings)
    config.base.path = "runs/smollm2/model"  # the program makes it if it is missing
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
    return config.lock()
