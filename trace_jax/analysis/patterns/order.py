"""Patterns of calls: errors, and which calls come before and after which."""

from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Finding
from trace_jax.analysis.episode import Call, Episode
from trace_jax.analysis.tool_names import plain_name
from trace_jax.analysis.values import leaves


def errors(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """avoid_errors_of_TOOL: LACKING if a call of the tool failed."""
    for call in episode.calls:
        evidence = f"turn {call.turn}: {call.name} answered {call.result[:80]}"
        yield f"avoid_errors_of_{plain_name(call.name)}", Finding(not call.failed, 0.8, evidence)


def order(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """call_TOOL_before_WRITE; follow_up_WRITE_with_WRITE, in one turn; avoid_TOOL_after_TOOL, at once."""
    calls = [call for call in episode.calls if not call.failed and call.kind in ("read", "write")]
    for turn in sorted({call.turn for call in calls}):
        own = [call for call in calls if call.turn == turn]
        yield from _before(episode, own, calls)
        yield from _after(own)


def _before(episode: Episode, own: list[Call], calls: list[Call]) -> Iterator[tuple[str, Finding]]:
    """What was called before the first call of each write in a turn, and what was called after it."""
    firsts: dict[str, Call] = {}
    for call in own:
        if call.kind == "write":
            firsts.setdefault(call.name, call)
    for write, call in firsts.items():
        before, names = _prepared(call, calls), {other.name for other in own}
        for tool, kind in episode.kinds.items():
            if tool != write and (kind == "read" or tool in before | names and kind == "write"):
                evidence = f"turn {call.turn}: {write}, {tool} before it: {tool in before}"
                yield f"call_{plain_name(tool)}_before_{plain_name(write)}", Finding(tool in before, 0.8, evidence)
        after = {other.name for other in own if other.order > call.order}
        for tool in sorted(episode.write_tools - {write}):
            evidence = f"turn {call.turn}: {write}, {tool} after it: {tool in after}"
            yield f"follow_up_{plain_name(write)}_with_{plain_name(tool)}", Finding(tool in after, 0.8, evidence)


def _after(own: list[Call]) -> Iterator[tuple[str, Finding]]:
    """Which call came right after which, of the tools called in a turn."""
    pairs = {(call.name, after.name) for call, after in zip(own, own[1:], strict=False)}
    names = sorted({call.name for call in own})
    for earlier in names:
        for later in names:
            if earlier != later:
                done = (earlier, later) in pairs
                evidence = f"turn {own[0].turn}: {later} right after {earlier}: {done}"
                yield f"avoid_{plain_name(later)}_after_{plain_name(earlier)}", Finding(not done, 0.8, evidence)


def looks_up(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """look_up_before_changes: LACKING if a change was made with nothing read for it."""
    calls = [call for call in episode.calls if not call.failed and call.kind in ("read", "write")]
    for call in calls:
        if call.kind == "write":
            before = {name for name in _prepared(call, calls) if episode.kinds[name] == "read"}
            evidence = f"turn {call.turn}: {call.name} after {', '.join(sorted(before)) or 'reading nothing'}"
            yield "look_up_before_changes", Finding(bool(before), 0.8, evidence)


def _prepared(write: Call, calls: list[Call]) -> set[str]:
    """Tools called before ``write`` that have to do with it: in the same turn, or with a value in common."""
    values = {leaf for _, leaf in leaves(write.arguments or {}) if isinstance(leaf, str)}
    return {
        call.name
        for call in calls
        if call.order < write.order
        and (call.turn == write.turn or values & {leaf for _, leaf in leaves(call.arguments or {})})
    }
