"""The person that an agent talks to: scripted, or simulated by a language model. It is a part of the environment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "protocol": ["User", "UserTurn"],
        "scripted": ["ScriptedUser"],
        "simulated": ["SimulatedUser", "SimulatedUserSettings", "UserFault"],
    },
)
