"""The checks of a target that play next to nothing. The pipeline runs them before it spends a rollout."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from trace_jax.environments.checks.finding import Finding, judged
from trace_jax.environments.checks.scripted import Played, at_random, do_nothing, one_line, play
from trace_jax.environments.protocol import Target
from trace_jax.environments.results import result_fits
from trace_jax.environments.splits import SPLITS, check_ids, check_splits
from trace_jax.errors import UserError

_OPENED = 100  # tasks that both splits list, and that are opened in both
_NAMED = 8  # tools that are named in a line


def require_sound(target: Target, name: str) -> None:
    """Raises UserError, which names the check and the remedy, if one of the quick checks fails."""
    for finding in quick_findings(target, name):
        if finding.verdict == "fail":
            raise UserError(
                f"target {name!r}: {finding.check}: {finding.detail}: {finding.remedy}; "
                "python -m launch.check_target tells more"
            )


def quick_findings(target: Target, name: str) -> Iterator[Finding]:
    """The static findings, then two short episodes of each split: nothing is done, and calls are made at random.

    One odd task is no fault of the target: that episodes break is found only if all of them do.
    """
    static = list(static_findings(target, name))
    yield from static
    if any(finding.verdict == "fail" for finding in static):
        return
    episodes = [
        play(partial(target.environment, split), target.tasks(split)[0], script)
        for split in SPLITS
        for script in (do_nothing, at_random())
    ]
    if all(played.error is not None for played in episodes):
        yield plays(episodes)
    yield answers_fit(episodes, target.results)


def static_findings(target: Target, name: str) -> Iterator[Finding]:
    """Task ids, splits and schemas. What the target raises fails a line; the lines that build on it are left out."""
    steps: tuple[tuple[str, Callable[[Target, str], Finding]], ...] = (
        ("task ids", _ids),
        ("splits not empty", _not_empty),
        ("splits disjoint", _disjoint),
        ("tool schemas", _tool_schemas),
        ("result schemas", _result_schemas),
    )
    for check, step in steps:
        try:
            finding = step(target, name)
        except Exception as error:  # a target is foreign code
            finding = Finding(check, "fail", one_line(error), "mend what raises it")
        yield finding
        if finding.verdict == "fail" and check in ("task ids", "splits not empty"):
            return


def plays(episodes: list[Played]) -> Finding:
    """Whether episodes were played to a grade."""
    problems = [f"task {played.task!r}: {played.error}" for played in episodes if played.error is not None]
    remedy = "reset, step and grade may not raise; a wrong call gets an error as its answer"
    return judged("episodes play", problems, f"{len(episodes)} episodes", remedy)


def answers_fit(episodes: list[Played], results: Mapping[str, dict[str, Any]]) -> Finding:
    """Whether what tools answered has the shape that ``results`` declare."""
    validators: dict[str, Draft202012Validator] = {}
    problems, count = [], 0
    for call, answer in (exchange for played in episodes for exchange in played.exchanges):
        if call.name not in results:
            continue  # an unknown tool
        count += 1
        validator = validators.setdefault(call.name, Draft202012Validator(results[call.name]))
        try:
            fits = result_fits(validator, answer.content)
        except Exception as error:  # a faulty schema may raise anything
            problems.append(f"results[{call.name!r}] cannot judge an answer: {type(error).__name__}: {error}")
            continue
        if not fits:
            problems.append(f"{call.name} answered {(answer.content or '')[:80]!r}, which results do not allow")
    remedy = "results[tool] is the JSON Schema of all answers of a tool, errors included"
    return judged("answers fit results", problems, f"{count} answers", remedy)


def _ids(target: Target, name: str) -> Finding:
    try:
        for split in SPLITS:
            check_ids(target, name, split)
    except UserError as error:
        return Finding("task ids", "fail", str(error), "tasks(split) has to list integers or printable texts, once")
    kinds = {type(task).__name__ for split in SPLITS for task in target.tasks(split)}
    return Finding("task ids", "ok", f"unique, {' and '.join(sorted(kinds)) or 'none'}")


def _not_empty(target: Target, name: str) -> Finding:
    empty = [f"{split} has no task" for split in SPLITS if not target.tasks(split)]
    counts = ", ".join(f"{len(target.tasks(split))} {split}" for split in SPLITS)
    return judged("splits not empty", empty, counts, "tasks(split) has to list one at least")


def _disjoint(target: Target, name: str) -> Finding:
    try:
        check_splits(target, name, _OPENED)
    except UserError as error:
        return Finding("splits disjoint", "fail", str(error), "a task that is trained on may not be scored on")
    shared = set(map(str, target.tasks("train"))) & set(map(str, target.tasks("held_out")))
    return Finding(
        "splits disjoint", "ok", f"{len(shared)} ids in both, which open differently" if shared else "no id is in both"
    )


def _tool_schemas(target: Target, name: str) -> Finding:
    problems = []
    offered = {split: tuple(target.environment(split).tools) for split in SPLITS}
    for split, tools in offered.items():
        twice = [name for name, count in Counter(tool.name for tool in tools).items() if count > 1]
        problems += [f"{split}: two tools are called {name!r}" for name in twice]
        for tool in tools:
            if tool.parameters.get("type") != "object":
                problems.append(f"{tool.name}: its parameters have type {tool.parameters.get('type')!r}, not 'object'")
            if not tool.description:
                problems.append(f"{tool.name} has no description, which is all that an agent knows of it")
            problems += [f"{tool.name}: {flaw}" for flaw in _flaws(tool.parameters)]
    if offered["train"] != offered["held_out"]:
        problems.append("train and held_out offer different tools")
    names = [tool.name for tool in offered["train"]]
    fine = f"of {len(names)} tools{': ' if names else ''}{', '.join(names[:_NAMED])}{', …' if names[_NAMED:] else ''}"
    return judged("tool schemas", problems, fine, "Tool.parameters is a JSON Schema (2020-12) of type object")


def _result_schemas(target: Target, name: str) -> Finding:
    remedy = "results is a mapping with a JSON Schema for each tool"
    results = getattr(target, "results", None)
    if not isinstance(results, Mapping):
        return Finding("result schemas", "fail", f"results is {str(results)[:40]!r}", remedy)
    tools = {tool.name for split in SPLITS for tool in target.environment(split).tools}
    problems = [f"{name} has no entry" for name in sorted(tools - results.keys())]
    problems += [f"{name} is no tool" for name in sorted(results.keys() - tools)]
    problems += [f"{name}: {flaw}" for name, schema in results.items() for flaw in _flaws(schema)]
    return judged("result schemas", problems, f"of {len(results)} tools", remedy)


def _flaws(schema: Any) -> list[str]:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [f"{error.json_path}: {error.message}"]
    return []
