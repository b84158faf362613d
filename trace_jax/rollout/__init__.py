"""The agent loop: episodes of a policy in an environment, recorded token by token."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agent": ["run_episode"],
        "chat_episode": ["run_chat_episode"],
        "plan": ["plan_episodes"],
        "player": ["EpisodeTask", "Player", "collect"],
        "recording": ["Recording"],
        "settings": ["EvaluationSettings", "RolloutSettings"],
        "spec": ["EpisodeSpec"],
    },
)
