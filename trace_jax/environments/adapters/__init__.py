"""Environments of other libraries as targets: their seeds are the tasks, and their return is the reward.

    --config.target.environment=openenv:http://host:8000 --config.target.parameters='{"returns": [0, 1]}'
    --config.target.environment=gymnasium:my_package:MyText-v0 --config.target.parameters='{"returns": [-10, 5]}'

What runs in a worker of another Python imports nothing here that needs more than pydantic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gymnasium_text": ["GymnasiumText"],
        "openenv": ["OpenEnv"],
        "returns": ["ReturnRange"],
        "schemes": ["expand"],
    },
)
