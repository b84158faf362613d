"""The whole method on the calendar of ``examples/calendar.py``, on a laptop CPU; practice replaces a language model.

python -m launch.tiny_agent --config=configs/calendar_agent.py --workdir=runs/calendar_agent
python -m launch.pipeline --config=configs/calendar.py --workdir=runs/calendar
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """Deltas over ``quickstart``."""
    config = quickstart.get_config()
    config.base.path = "runs/calendar_agent"
    config.target.environment = "examples.calendar:calendar"
    config.target.held_out_tasks = 60
    return config
