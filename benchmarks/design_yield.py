"""Which gate refuses which design: planted faults, shipped and written designs, and the designs of work directories.

    python -m benchmarks.design_yield [--workdir=runs/a,runs/b] [--rungs=first] [--written] [--json=yield.json]

- planted faults: environments with a fault each (``planted_designs``), and the sound one that they are made of. A dot
  is a refusal.
- shipped designs: the helpdesk's generators, and practice on the calendar; of each ladder the first design, or all.
  CPU-seconds are those of all gates of a design, in one process.
- written designs, with --written: modules as a language model writes them (``written_designs``), in the sandbox.
  CPU-seconds are those of both processes and their sandboxes. --airline and --retail name
  trajectories or τ-bench result files: the gates on novelty and shapes compare the examples with these episodes.
- work directories: the designs of a run, by its manifests: rounds, refusals, rollouts and tokens.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from absl import app, flags
from rich.console import Console
from rich.table import Table

from benchmarks.planted_designs.faults import FAULTS
from benchmarks.planted_designs.matrix import matrix
from benchmarks.written_designs import CALENDAR, Checked, Written, checked, example_designs, recorded_designs
from benchmarks.yields import Yield, yields_of
from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Check
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.practice import RequestPractice
from trace_jax.environments.protocol import Practice
from trace_jax.environments.registry import environment_factory, load_target
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.gates import run_gates
from trace_jax.synthesis.prompt_gates import Factory

WORKDIRS = flags.DEFINE_list("workdir", [], "work directories whose designs are counted")
RUNGS = flags.DEFINE_enum("rungs", "first", ["first", "all", "none"], "designs of each ladder that are checked")
WRITTEN = flags.DEFINE_bool("written", False, "check the designs that bring their source, in the sandbox")
AIRLINE = flags.DEFINE_string("airline", None, "episodes of airline, for the example environments")
RETAIL = flags.DEFINE_string("retail", None, "episodes of retail, such as AgentRx's runs")
JSON = flags.DEFINE_string("json", None, "file to which everything is written")

HELPDESK = Design(entry_point="helpdesk", parameters={})
LACKING = ("first_free", "refuse_board", "count")  # kinds of the calendar that the tiny agent fails at
ROUTINE = ("book", "move", "cancel", "invite")
SEEDS = 16


def main(_: list[str]) -> None:
    """Print the tables, and write them."""
    console = Console(width=160)
    planted = matrix()
    console.print(matrix_table(planted))
    shipped = list(shipped_designs(RUNGS.value))
    if shipped:
        console.print(checked_table("shipped designs", shipped))
    written = [checked(each, SEEDS) for each in written_designs()]
    if written:
        console.print(checked_table("written designs", written))
    rows = [row for workdir in WORKDIRS.value for row in yields_of(Path(workdir))]
    if rows:
        console.print(yield_table(rows))
    console.print(refusals_table(planted, shipped, written, rows))
    if JSON.value:
        found = {
            "planted": {name: refused(checks) for name, checks in planted.items()},
            "shipped": checked_json(shipped),
            "written": checked_json(written),
            "work_directories": [row.to_json() for row in rows],
        }
        Path(JSON.value).write_text(json.dumps(found, indent=2) + "\n")


def written_designs() -> Iterator[Written]:
    """The designs with a source, if they are wanted."""
    if WRITTEN.value:
        yield from example_designs(AIRLINE.value, RETAIL.value)
        yield from recorded_designs()


def shipped_designs(rungs: str) -> Iterator[Checked]:
    """The shipped designs through all gates that run in one process."""
    ladders: list[tuple[Design, str, Practice]] = [
        (HELPDESK, f"helpdesk {name}", FamilyPractice(family)) for name, family in FAMILIES.items()
    ]
    ladders += [(CALENDAR, f"calendar {kind}", RequestPractice(CALENDAR, (kind,), ROUTINE)) for kind in LACKING]
    for own, name, ladder in ladders:
        target = load_target(own.entry_point, own.parameters)
        tasks, tools = conversations(target), target.environment("train").tools
        designs = {"first": (ladder.first,), "all": ladder.designs, "none": ()}[rungs]
        for design in designs:
            make = cast(Factory, environment_factory(design, own))
            begun = time.process_time()
            checks = run_gates(make, tools, target.results, range(SEEDS), tasks)
            seconds = time.process_time() - begun
            yield Checked(f"{name} {ladder.designs.index(design)}", checks, seconds)


def refused(checks: Sequence[Check]) -> list[str]:
    """The gates that refuse."""
    return [check.name for check in checks if not check.passed]


def matrix_table(planted: dict[str, tuple[Check, ...]]) -> Table:
    """Faults by gates."""
    gates = [check.name for check in next(iter(planted.values()))]
    table = Table(title="planted faults: which gate refuses", caption=_numbered(gates))
    table.add_column("fault")
    for number, _ in enumerate(gates, start=1):
        table.add_column(str(number), justify="center")
    for name, checks in planted.items():
        table.add_row(name, *("" if check.passed else "●" for check in checks))
    return table


def checked_json(designs: Sequence[Checked]) -> dict[str, object]:
    """Designs by what became of them, for the file."""
    return {each.name: {"refused": refused(each.checks), "seconds": each.seconds} for each in designs}


def checked_table(title: str, designs: Sequence[Checked]) -> Table:
    """Designs by what became of them."""
    table = Table("design", "refused by", title=f"{title}, {SEEDS} seeds")
    table.add_column("CPU-s", justify="right")
    for each in designs:
        table.add_row(each.name, ", ".join(refused(each.checks)) or "–", f"{each.seconds:.1f}")
    return table


def yield_table(rows: Sequence[Yield]) -> Table:
    """Capabilities by what their designs took."""
    table = Table("work directory", "capability", "outcome", title="work directories")
    for name in (
        "rounds",
        "designs",
        "no design",
        "refused by gates",
        "off the window",
        "rollouts",
        "tokens sampled",
        "asked",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        gates = ", ".join(f"{name} {count}" for name, count in row.refused.most_common()) or "–"
        counts = (row.off, row.rollouts, row.sampled, row.asked)
        table.add_row(
            row.source,
            row.capability,
            row.outcome,
            str(row.rounds),
            str(row.designs),
            str(row.unusable),
            gates,
            *(f"{count:,}" for count in counts),
        )
    return table


def refusals_table(
    planted: dict[str, tuple[Check, ...]],
    shipped: Sequence[Checked],
    written: Sequence[Checked],
    rows: Sequence[Yield],
) -> Table:
    """Gates by the share of designs that they refused."""
    sets = {
        "planted": (Counter(name for fault in FAULTS for name in refused(planted[fault])), len(FAULTS)),
        "shipped": (Counter(name for each in shipped for name in refused(each.checks)), len(shipped)),
        "written": (Counter(name for each in written for name in refused(each.checks)), len(written)),
        "work directories": (sum((row.refused for row in rows), Counter[str]()), sum(row.designs for row in rows)),
    }
    table = Table("gate", title="share of designs that a gate refused")
    for name, (_, count) in sets.items():
        table.add_column(f"{name} ({count})", justify="right")
    known = [check.name for check in next(iter(planted.values()))]
    for gate in dict.fromkeys([*known, *(name for counts, _ in sets.values() for name in counts)]):
        table.add_row(gate, *(f"{counts[gate] / count:.0%}" if count else "" for counts, count in sets.values()))
    return table


def _numbered(gates: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(gates, start=1))


if __name__ == "__main__":
    app.run(main)
