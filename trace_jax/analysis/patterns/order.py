"""Patterns of calls: errors, and which calls come before and after which."""

from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode
from trace_jax.analysis.tool_names import plain_name
from trace_jax.analysis.values import leaves


def errors(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """avoid_errors_of_TOOL: LACKING if a call of the tool failed."""
    for name in sorted({call.name for call in episode.calls}):
        failed = [call for call in episode.calls if call.name == name and call.failed]
        pattern = f"avoid_errors_of_{plain_name(name)}"
        if failed:
            yield pattern, lacking(0.8, f"{name} answered {failed[0].result[:80]}")
        else:
            yield pattern, present(0.8, f"{name} never failed")


def order(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """call_READ_before_WRITE, avoid_TOOL_after_TOOL (at once, in one turn), follow_up_WRITE_with_WRITE."""
    calls = [call for call in episode.calls if not call.failed and call.kind in ("read", "write")]
    writes = {call.name for call in calls if call.kind == "write"}
    for write in sorted(writes):
        made = [call for call in calls if call.name == write]
        before = [_prepared(call, calls) for call in made]
        for read, kind in episode.kinds.items():
            if kind in ("read", "write") and read != write:
                shown = all(read in names for names in before)
                if kind == "read" or shown or any(call.name == read and call.turn == made[0].turn for call in calls):
                    evidence = f"{read} before {write}: {shown}"
                    yield f"call_{plain_name(read)}_before_{plain_name(write)}", Finding(shown, 0.8, evidence)
        after = {call.name for call in calls if call.order > made[0].order and call.turn == made[0].turn}
        for other in sorted(episode.write_tools - {write}):
            shown = other in after
            pattern = f"follow_up_{plain_name(write)}_with_{plain_name(other)}"
            yield pattern, Finding(shown, 0.8, f"{other} after {write}: {shown}")
    pairs = {(call.name, after.name) for call, after in zip(calls, calls[1:], strict=False) if call.turn == after.turn}
    names = sorted({call.name for call in calls})
    for earlier in names:
        for later in names:
            if earlier != later:
                done = (earlier, later) in pairs
                evidence = f"{later} right after {earlier}: {done}"
                yield f"avoid_{plain_name(later)}_after_{plain_name(earlier)}", Finding(not done, 0.8, evidence)


def _prepared(write: Call, calls: list[Call]) -> set[str]:
    """Tools called before ``write`` that have to do with it: in the same turn, or with a value in common."""
    values = {leaf for _, leaf in leaves(write.arguments or {}) if isinstance(leaf, str)}
    return {
        call.name
        for call in calls
        if call.order < write.order
        and (call.turn == write.turn or values & {leaf for _, leaf in leaves(call.arguments or {})})
    }
