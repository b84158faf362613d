"""Runs the pipeline on recorded episodes, with the recorded answers of a language model.

    python -m launch.replay --recorded=assets/calendar_llm/run --config=configs/calendar_llm.py --workdir=DIR

It is ``launch.pipeline`` in a work directory that begins with the JSON Lines of --recorded: base_rollouts.jsonl, and
the model_calls.jsonl of analysis and environments, each request with its answer. The config sets llm.replay, so that no
endpoint is asked. Everything after the answers is done again: gates, calibration, training, routing, evaluation.
"""

import shutil
from pathlib import Path

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from launch import pipeline
from trace_jax.errors import UserError
from trace_jax.pipeline.checks import open_run
from trace_jax.program import run
from trace_jax.run_settings import read_settings
from trace_jax.session import load_base


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Copy what was recorded, unless it is there, and run every stage."""
    recorded = Path(RECORDED.value)
    paths = sorted(recorded.rglob("*.jsonl"))
    if not paths:
        raise UserError(f"--recorded={recorded}: it holds no .jsonl file: name the directory of a recorded run")
    settings = read_settings(config)
    root = open_run(workdir, settings, load_base(settings))
    for path in paths:
        copy = root / path.relative_to(recorded)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    pipeline.main(config, workdir)


if __name__ == "__main__":
    RECORDED = flags.DEFINE_string("recorded", None, "directory of a recorded run", required=True)
    run(main)
