"""Prints plans on the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console, JustifyMethod
from rich.table import Table

from trace_jax.planning.chips import GIB
from trace_jax.planning.report import PlanReport, ProgramPlan

_WIDTH = 160  # columns of a table that goes to a file
_SHOWN = 12  # collectives that are shown of a program; the JSON holds all


def print_plan(report: PlanReport, console: Console | None = None) -> None:
    """Print memory, work and collectives of each program on each device, then the estimate of the step."""
    out = console or Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    mesh = " × ".join(f"{name} {size}" for name, size in report.mesh.items())
    versions = ", ".join(f"{name} {version}" for name, version in report.compiler.items())
    out.print(f"{report.topology}: {report.chips} chips, mesh {mesh} ({versions})", markup=False)
    for program in report.programs:
        out.print()
        out.print(f"{program.name}: {program.memory.verdict}", style="" if program.memory.fits else "red", markup=False)
        out.print(_resources(program))
        out.print(_buffers(program))
        if program.collectives:
            out.print(_totals(program))
            out.print(_collectives(program))
        for warning in program.warnings:
            out.print(f"note: {warning}", markup=False)
    if report.step is not None:
        out.print()
        out.print(_step(report), markup=False)


def print_ranking(plans: Sequence[tuple[str, PlanReport]], console: Console | None = None) -> None:
    """Print the plans of one run with their names, in the given order."""
    out = console or Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    table = _table(
        "tokens/s by the roofline", "plan", ">peak", ">of", ">tokens/s", ">without overlap", ">MFU", "bound by"
    )
    for name, report in plans:
        fullest = max((program.memory for program in report.programs), key=lambda memory: memory.peak)
        row = [name, f"{fullest.peak / GIB:,.2f} GiB", f"{fullest.available / GIB:,.2f} GiB"]
        step = report.step
        if step is None or step.tokens_per_second is None or step.mfu is None:
            table.add_row(*row, "does not fit")
            continue
        apart = step.tokens_per_second * step.seconds / step.seconds_without_overlap
        speeds = f"{step.tokens_per_second:,.0f}", f"{apart:,.0f}", f"{100 * step.mfu:.1f} %", step.bottleneck
        table.add_row(*row, *speeds)
    out.print(table)


def _resources(program: ProgramPlan) -> Table:
    table = _table(f"{program.name}, each device, one run ({program.times:g} a step)", "what", ">amount")
    memory = program.memory
    for name, size in (
        ("arguments", memory.arguments),
        ("outputs", memory.outputs),
        ("outputs that replace arguments", memory.aliased),
        ("temporaries", memory.temporaries),
        ("program", memory.program),
        ("kept for other programs", memory.resident),
        ("peak", memory.peak),
        ("available", memory.available),
    ):
        if size is not None:
            table.add_row(name, f"{size / GIB:,.2f} GiB")
    if program.cost is not None:
        cost = program.cost
        table.add_row("arithmetic", f"{cost.flops / 1e12:,.2f} TFLOP, {_ms(cost.compute_seconds)}")
        table.add_row("memory traffic", f"{cost.hbm_bytes / 1e9:,.2f} GB, {_ms(cost.memory_seconds)}")
        table.add_row("operations, each by the slower of the two", _ms(cost.operations_seconds))
        table.add_row("interconnect", _ms(cost.interconnect_seconds))
    table.add_row(f"compiled at {program.level} in", f"{program.compile_seconds:.1f} s")
    return table


def _buffers(program: ProgramPlan) -> Table:
    table = _table("largest buffers at the peak", ">size", "shape", "from", "line")
    for buffer in program.memory.buffers:
        table.add_row(f"{buffer.bytes / GIB:.3f} GiB", buffer.shape, _short(buffer.purpose), _lines(buffer.source))
    return table


def _totals(program: ProgramPlan) -> Table:
    table = _table("collectives by kind", "kind", ">count", ">payload", ">sent", ">time")
    for total in program.totals:
        table.add_row(
            total.kind, f"{total.count:,}", _mb(total.payload_bytes), _mb(total.sent_bytes), _ms(total.seconds)
        )
    return table


def _collectives(program: ProgramPlan) -> Table:
    table = _table("collectives by purpose", "kind", "over", ">count", ">payload", ">time", "for", "line")
    for use in program.collectives[:_SHOWN]:
        over = f"{', '.join(use.axes)} ({use.group})"
        count = f"{use.count:,}{'?' if use.estimated else ''}{' async' if use.asynchronous else ''}"
        table.add_row(
            use.kind,
            over,
            count,
            _mb(use.payload_bytes),
            _ms(use.seconds),
            _short(use.purpose),
            _lines(use.source) or "XLA",
        )
    rest = program.collectives[_SHOWN:]
    if rest:
        size = sum(use.payload_bytes for use in rest)
        table.add_row(f"{len(rest)} more", "", "", _mb(size), _ms(sum(use.seconds for use in rest)), "", "")
    return table


def _step(report: PlanReport) -> str:
    step = report.step
    assert step is not None
    parts = [
        f"step by the roofline: {_ms(step.seconds)} if collectives overlap with computation, "
        f"{_ms(step.seconds_without_overlap)} if none does; bound by {step.bottleneck}"
    ]
    if step.tokens_per_second is not None:
        parts.append(f"{step.tokens_per_second:,.0f} tokens/s")
    if step.mfu is not None:
        parts.append(f"MFU at most {100 * step.mfu:.1f} %")
    return "; ".join(parts)


def _table(title: str, *columns: str) -> Table:
    """Columns that start with ``>`` are numbers."""
    table = Table(title=title, title_justify="left", box=None)
    for name in columns:
        justify: JustifyMethod = "right" if name.startswith(">") else "left"
        table.add_column(
            name.removeprefix(">"), justify=justify, header_style="bold", no_wrap=name not in ("for", "from")
        )
    return table


def _short(path: str) -> str:
    """The end of an operation's path, which says the most."""
    parts = [part for part in path.split("/") if part not in ("body", "while", "eval_jaxpr", "shard_map")]
    return "/".join(parts[-3:])


def _lines(source: str) -> str:
    """The source line and its caller. The JSON has one caller more."""
    return " < ".join(source.split(" < ")[:2])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
