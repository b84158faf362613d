"""What the episodes of a method took, and what went wrong in them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from trace_jax.analysis.episode import read_episode
from trace_jax.contract.evaluation import Effort, ErrorCounts
from trace_jax.contract.trajectory import Tool, ToolCall, Trajectory
from trace_jax.environments.calls import call_error
from trace_jax.environments.hosts.deadline import DeadlineExceeded, deadline

NAMED = 20  # kinds of one error that are named, the most frequent; the rest count as OTHERS
OTHERS = "others"
_LONGEST = 60  # characters of a name, which a model may have made up
_KIND = re.compile(r"(?:[A-Z]\w*(?:: |$))+")
_SECONDS = 5.0  # until the check of one call's arguments is given up: a pattern may take exponential time


def effort(episodes: Sequence[Trajectory]) -> Effort:
    """Tokens, turns and seconds of ``episodes``, of which there is at least one."""
    seconds = np.array([episode.seconds for episode in episodes])
    turns = [sum(message.role == "assistant" for message in episode.messages) for episode in episodes]
    return Effort(
        episodes=len(episodes),
        prompt_tokens=sum(episode.usage.prompt_tokens for episode in episodes),
        completion_tokens=sum(episode.usage.completion_tokens for episode in episodes),
        turns=float(np.mean(turns)),
        seconds=float(seconds.mean()),
        seconds_median=float(np.median(seconds)),
        seconds_p95=float(np.quantile(seconds, 0.95)),
    )


def error_counts(episodes: Sequence[Trajectory]) -> ErrorCounts:
    """What went wrong in ``episodes``."""
    kinds: dict[str, Counter[str]] = {name: Counter() for name in ("unknown", "malformed", "invalid")}
    terminations, broken, errors, checks, calls = Counter[str](), Counter[str](), Counter[str](), Counter[str](), 0
    for episode in episodes:
        terminations[episode.termination] += 1
        if episode.error is not None:
            broken[_broken_by(episode.error)] += 1
        checks.update(check.name for check in episode.checks if not check.passed)
        for call in _calls(episode):
            calls += 1
            if (kind := _fault(call, episode.tools)) is not None:
                kinds[kind][call.name] += 1
        errors.update(call.name for call in read_episode(episode).calls if call.failed)
    return ErrorCounts(
        terminations=_named(terminations),
        broken=_named(broken),
        calls=calls,
        unknown_tools=_named(kinds["unknown"]),
        malformed_calls=_named(kinds["malformed"]),
        invalid_arguments=_named(kinds["invalid"]),
        tool_errors=_named(errors),
        failed_checks=_named(checks),
    )


def _calls(episode: Trajectory) -> Iterator[ToolCall]:
    for message in episode.messages:
        if message.role == "assistant":
            yield from message.tool_calls


def _fault(call: ToolCall, tools: Sequence[Tool]) -> str | None:
    if call.name not in {tool.name for tool in tools}:
        return "unknown"
    if call.arguments is None:
        return "malformed"
    try:
        with deadline(_SECONDS):
            return "invalid" if call_error(call, tools) else None
    except DeadlineExceeded:
        return "invalid"


def _broken_by(error: str) -> str:
    """The kind of the error that broke an episode: the types that its text begins with.

    >>> _broken_by("EnvironmentFault: OSError: the desk is on fire")
    'EnvironmentFault: OSError'
    """
    found = _KIND.match(error)
    return found[0].removesuffix(": ") if found else "unknown"


def _named(counts: Counter[str]) -> dict[str, int]:
    """The most frequent names, then the others together. Names of equal count are in alphabetical order."""
    short = Counter[str]()
    for name, count in counts.items():
        short[name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"] += count
    ranked = sorted(short.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[NAMED:])
    return dict(ranked[:NAMED]) | ({OTHERS: rest} if rest else {})
