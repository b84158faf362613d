"""An OpenAI-compatible endpoint plays the target: --config.engine.url=https://HOST/v1 --config.engine.model=NAME."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Room for the prompts of a large model. The bounds are the endpoint's own counts."""
    config = base.get_config()
    config.engine.kind = "chat"
    config.rollout.max_turns = 30
    config.rollout.max_turn_tokens = 2048
    config.rollout.max_episode_tokens = 65536
    config.rollout.max_seconds = 900.0
    config.rollout.concurrency = 16
    return config.lock()
