"""Makes the record of the answers in ``answers.py``, by giving them to the analyst and the designer over HTTP.

    python -m examples.calendar_llm.record

It reads the base's episodes in ``assets/calendar_llm/run`` and writes analysis/model_calls.jsonl and
environments/model_calls.jsonl beside them. Run it again when a prompt has changed: each request is kept with its whole
text, and a replay finds no other. When the agent has changed, its episodes are others, and so are the answers.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.calendar_llm import get_config
from evaluation.judging.written_endpoint import written_endpoint
from examples.calendar_llm.scribe import answer
from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.compact import compact
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import CALLS as ANALYSIS_CALLS
from trace_jax.analysis.stage import analyse
from trace_jax.contract.episodes import read_episodes
from trace_jax.environments.registry import load_target
from trace_jax.run_settings import read_settings
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.designers import CALLS, make_designer
from trace_jax.synthesis.kinds import Evidence

RUN = Path("assets/calendar_llm/run")
ANALYSIS, ENVIRONMENTS = "analysis", "environments"


def main(run: Path = RUN) -> None:
    """Ask every question of a run once, and keep it with its answer in ``run``."""
    for name in (ANALYSIS, ENVIRONMENTS):
        shutil.rmtree(run / name, ignore_errors=True)
    with written_endpoint(answer) as url:
        _ask(run, url)


def _ask(run: Path, url: str) -> None:
    settings = read_settings(get_config())
    llm = replace(settings.llm, url=url, replay=False)
    episodes = read_episodes(run / "base_rollouts.jsonl")
    analyst = make_analyst(
        settings.analysis.analyst, analysis=settings.analysis, llm=llm, record=run / ANALYSIS / ANALYSIS_CALLS
    )
    with TemporaryDirectory() as directory:
        found = analyse(
            sorted(episodes, key=lambda episode: (episode.seed, episode.trial)),  # as the pipeline plans them
            analyst,
            directory,
            runs=settings.analysis.runs,
            seed=settings.seed,
            criteria=Criteria(min_support=settings.analysis.min_support),
        )
    designer = make_designer(settings.synthesis, llm=llm, record=run / ENVIRONMENTS / CALLS, seed=settings.seed)
    own = settings.target.design
    target = load_target(own.entry_point, own.parameters)
    for selected in found.selected:
        evidence = Evidence(episodes, frozenset(selected.failed_examples))
        design = designer.design(make_brief(selected.capability, own, target, evidence, compact), ())
        print(f"{selected.capability.name}: {design.entry_point} {design.parameters}")


if __name__ == "__main__":
    main()
