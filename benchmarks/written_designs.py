"""Designs that bring their source, as a language model writes them, through the gates as stage 2 runs them.

They are the five modules of ``examples/environments`` in the shapes of τ²-bench, and the answers of the recorded
designer on the calendar. Each is played in two processes, in a sandbox of each.
"""

import json
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trace_jax.analysis.importers import tau_bench
from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import SANDBOX, Design
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.trajectory import Check, Tool, Trajectory
from trace_jax.environments.registry import load_target
from trace_jax.synthesis.designer import Brief, make_brief
from trace_jax.synthesis.disjoint import NO_TASKS, Conversations, conversations, recorded
from trace_jax.synthesis.isolated import run_isolated
from trace_jax.synthesis.llm.form import WrittenModule

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "tests" / "examples" / "fixtures" / "tau2_shapes.json"
RECORDED = ROOT / "assets" / "calendar_llm" / "run"
CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={})
EXAMPLES = {
    "airline_booking": "SplitPayment",
    "airline_cancellation": "CancelWithinPolicy",
    "retail_exchange": "CollectBeforeExchange",
    "retail_return": "GatherBeforeReturn",
    "retail_variants": "ReadVariantsExactly",
}
SECONDS = 600.0  # for the gates of one design: other work may run beside


@dataclass(frozen=True)
class Checked:
    """A design, what the gates found, and the CPU-seconds that they took."""

    name: str
    checks: tuple[Check, ...]
    seconds: float


@dataclass(frozen=True)
class Written:
    """A design with a source, and what its gates compare it with."""

    name: str
    design: Design
    brief: Brief
    tasks: Conversations


def example_designs(airline: str | None, retail: str | None) -> Iterator[Written]:
    """The example environments. The episodes at ``airline`` and ``retail`` tell the target's tasks and shapes: they are
    trajectories (``.jsonl``) or a τ-bench result file. Without them the gates know tools and schemas of results alone.
    """
    shapes = json.loads(SHAPES.read_text())
    files = {"airline": airline, "retail": retail}
    tasks = {domain: recorded(_episodes(path, domain)) if path else NO_TASKS for domain, path in files.items()}
    for module, name in EXAMPLES.items():
        domain = module.partition("_")[0]
        source = (ROOT / "examples" / "environments" / f"{module}.py").read_text()
        design = Design(entry_point=f"{SANDBOX}{name}", parameters={"contrast_every": 4}, source=source)
        tools = tuple(Tool.model_validate(tool) for tool in shapes[domain]["tools"])
        candidate = Candidate(name=module, description="An example.")
        brief = Brief(candidate, Design(entry_point=domain, parameters={}), tools, shapes[domain]["results"], None)
        yield Written(f"example {module}", design, brief, tasks[domain])


def _episodes(path: str, domain: str) -> tuple[Trajectory, ...]:
    return read_episodes(path) if path.endswith(".jsonl") else tau_bench.load(path, domain, "unknown")


def recorded_designs() -> Iterator[Written]:
    """The recorded answers for the calendar, at the setting of the knobs with which each begins."""
    target = load_target(CALENDAR.entry_point, CALENDAR.parameters)
    tasks = conversations(target, read_episodes(RECORDED / "base_rollouts.jsonl"))
    for call in read_records(RECORDED / "environments" / "model_calls.jsonl", ModelCall):
        written = WrittenModule.model_validate_json(call.answer or "")
        capability = call.stage.partition("/")[2]
        brief = make_brief(Candidate(name=capability, description="Recorded."), CALENDAR, target)
        yield Written(f"recorded {capability}", written.design(written.first, brief.tools), brief, tasks)


def checked(written: Written, seeds: int) -> Checked:
    """The gates of one design, and the CPU-seconds of all processes that they took."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    checks = run_isolated(written.design, written.brief, range(seeds), SECONDS, written.tasks)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    return Checked(written.name, checks, seconds)
