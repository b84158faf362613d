"""The whole method on the calendar, with an analyst and a designer whose answers were written by hand and recorded.

python -m launch.replay --recorded=assets/calendar_llm/run --config=configs/calendar_llm.py --workdir=runs/calendar_llm
"""

from ml_collections import ConfigDict

from configs import calendar


def get_config() -> ConfigDict:
    """Deltas over ``calendar``: both stages are replayed from the calls on file, and no endpoint is asked."""
    config = calendar.get_config()
    with config.unlocked():
        config.base.path = "assets/calendar_llm/agent"
        config.rollout.trials = 1
        config.analysis.analyst = "llm"
        config.analysis.runs = 5
        config.analysis.passes = 2
        config.analysis.episode_tokens = 400
        config.analysis.episodes_per_request = 20
        config.synthesis.designer = "llm"
        config.llm.model = "written-by-hand"
        config.llm.replay = True
    return config
