"""Runs the analysis alone: finds the capabilities that an agent lacked in given trajectories.

    python -m launch.analyze --config=configs/analyze_tau_bench.py --config.source.path=FILE --workdir=DIR
    python -m launch.analyze … --config.analysis.analyst=llm --config.llm.url=URL --config.llm.model=NAME

The program writes candidates, label runs, report and selected capabilities to DIR. It prints the report as a Markdown
table, what a language model cost, and up to two failed episodes of each selected capability. After an interruption the
same command continues; answers of a language model are on file in DIR and cost nothing then.

--dry_run reads the trajectories, asks the endpoint for its models, and prints how many requests and tokens the analysis
will take. It spends nothing. --print_prompts prints what a language model is told.
"""

import asyncio

from etils import epath
from ml_collections import ConfigDict

from trace_jax.analysis.analyst import Analyst, make_analyst
from trace_jax.analysis.compact import compact
from trace_jax.analysis.importers.registry import read_with
from trace_jax.analysis.llm.analyst import LanguageModelAnalyst
from trace_jax.analysis.llm.estimate import estimate, estimate_table
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.settings import SourceSettings
from trace_jax.analysis.stage import CALLS, analyse, graded_trajectories
from trace_jax.analysis.table import markdown_table
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError
from trace_jax.llm.accounting import usage_table
from trace_jax.llm.check import check_model
from trace_jax.llm.model import LanguageModel
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings

_QUOTED = 2  # failed episodes that are printed for each selected capability
_QUOTED_TOKENS = 1000  # of each of them


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Read, analyse, print."""
    settings = read_settings(config)
    analyst = _analyst(settings, workdir / CALLS)
    trajectories = _read(settings.source)
    found = analyse(
        trajectories,
        analyst,
        workdir,
        runs=settings.analysis.runs,
        seed=settings.seed,
        criteria=Criteria(min_support=settings.analysis.min_support),
    )
    print(markdown_table(found.report))
    if isinstance(analyst, LanguageModelAnalyst):
        print(f"\n{usage_table(analyst.model.usage())}")
    by_id = {trajectory.id: trajectory for trajectory in trajectories}
    for selected in found.selected:
        print(f"\n## {selected.capability.name}\n{selected.capability.description}")
        for example in selected.failed_examples[:_QUOTED]:
            print(f"\n{compact(by_id[example], _QUOTED_TOKENS)}")


def check(config: ConfigDict, workdir: epath.Path | None) -> None:
    """Everything that can be checked without spending: settings, trajectories, endpoint and budget."""
    settings = read_settings(config)
    record = workdir / CALLS if workdir else None
    analyst = _analyst(settings, record)
    trajectories = _read(settings.source)
    graded = graded_trajectories(trajectories)
    passed = sum(trajectory.passed for trajectory in graded)
    broken = len(trajectories) - len(graded)
    print(f"\n{passed} passed, {len(graded) - passed} failed, {broken} broken.")
    if isinstance(analyst, LanguageModelAnalyst):
        print(f"\n{asyncio.run(check_model(LanguageModel(settings.llm), record, replay=settings.llm.replay))}")
    if isinstance(analyst, LanguageModelAnalyst) and 0 < passed < len(graded):
        print(f"\n{estimate_table(estimate(graded, settings.analysis, settings.llm, settings.seed), settings.llm)}")


def _analyst(settings: RunSettings, record: PathLike | None) -> Analyst:
    return make_analyst(settings.analysis.analyst, analysis=settings.analysis, llm=settings.llm, record=record)


def _read(source: SourceSettings) -> tuple[Trajectory, ...]:
    if not source.path:
        raise UserError("source.path is empty: name a result file with --config.source.path=FILE")
    return read_with(source)


if __name__ == "__main__":
    run(main, prompts=["trace_jax.analysis.llm"], dry_run=check)
