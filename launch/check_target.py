"""Checks whether a target keeps the protocol, before any model plays it.

    python -m launch.check_target --target=helpdesk
    python -m launch.check_target --target=examples.calendar:calendar --parameters='{"train": 200}' --json=found.json

The program prints one table: task ids and splits, schemas of tools and results, determinism in two processes, answers
against their schemas, leaks between episodes that are played at the same time, what an agent earns that does nothing
or calls tools at random, and steps per second. A failing line comes with its remedy. The exit status is 1 if a line
fails. No model is needed.
"""

import json
from dataclasses import asdict
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from evaluation.program import required, run
from trace_jax.environments.checks.finding import Finding
from trace_jax.environments.checks.target import check_all
from trace_jax.environments.registry import TARGETS
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError
from trace_jax.telemetry.progress import Progress

TARGET = flags.DEFINE_string("target", None, "target by name, or module:NAME of a class or function")
PARAMETERS = flags.DEFINE_string("parameters", "{}", "JSON object of what the target is made with")
TASKS = flags.DEFINE_integer("tasks", 100, "tasks of each split that are played at most", lower_bound=1)
JSON = flags.DEFINE_string("json", None, "file for the findings, as a JSON list")


def main() -> None:
    """Check the target and print the table. Raises UserError if a line fails."""
    settings = TargetSettings(environment=required(TARGET), parameters=PARAMETERS.value)
    name, parameters = settings.environment, settings.arguments()
    target = TARGETS.make(name, parameters)
    with Progress() as progress:
        bar = None

        def played(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or progress.stage(f"check of {name}", total)
            bar.advance()

        findings = list(check_all(target, name, parameters, TASKS.value, played))
        if bar is not None:
            bar.finish()
    show(findings)
    if JSON.value:
        Path(JSON.value).write_text(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    failed = [finding for finding in findings if finding.verdict == "fail"]
    if failed:
        raise UserError(f"target {name!r}: {len(failed)} of {len(findings)} lines fail, first {failed[0].check!r}")


def show(findings: list[Finding]) -> None:
    """Print one line a finding."""
    table = Table(box=None)
    for column in ("check", "verdict", "finding", "remedy"):
        table.add_column(column, header_style="bold", overflow="fold")
    for finding in findings:
        table.add_row(finding.check, finding.verdict, finding.detail, finding.remedy)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000  # lines in a file are not wrapped
    console.print(table)


if __name__ == "__main__":
    run(main)
