"""ToolSandbox's 129 scenarios without distraction tools: a train and a held-out part, together those of the paper.

--config.target.parameters='{"path": "/path/to/ToolSandbox", "user": {"url": "http://HOST/v1", "model": "NAME"}}'
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """All scenarios of both parts."""
    config = base.get_config()
    config.target.environment = "toolsandbox"
    config.target.train_tasks = 129
    config.target.held_out_tasks = 129
    return config
