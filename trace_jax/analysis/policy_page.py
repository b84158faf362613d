"""What episodes share, once for all of them: the policy that the agent was given, and its tools."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from trace_jax.analysis.cutting import cut, plain
from trace_jax.analysis.token_count import Count
from trace_jax.contract.trajectory import Tool, Trajectory

_RULE = re.compile(
    r"^#|\b(?:must|should|shall|only|never|not|cannot|can't|don't|always|before|after|unless|if|allow\w*|den(?:y|ied)|"
    r"require\w*|confirm\w*|at most|at least|within|limit\w*)\b",
    re.IGNORECASE,
)
_MOST_POLICIES = 4
_TOOLS_SHARE = 3  # the tools get a third of the budget
_LONGEST_TOOL = 240  # characters
_LONGEST_LINE = 1200  # characters of a line of a policy


def policy_page(episodes: Mapping[str, Trajectory], budget: int, count: Count) -> str:
    """The policies and tools of ``episodes`` (by the label of their page) in at most ``budget`` tokens.

    Policies are shortened by whole lines: headings and lines that state a rule stay longest. Where episodes have
    different policies, each says whose it is; of more than four, those of the most episodes are shown.
    """
    policies = _policies(episodes)
    shown = policies[:_MOST_POLICIES]
    tools = shorten("\n".join(_tools(tuple(episodes.values()))), budget // _TOOLS_SHARE, count)
    parts = []
    share = (budget - count(tools)) // max(1, len(shown))
    for labels, text in shown:
        title = "" if len(policies) == 1 else f"Policy of {', '.join(labels)}:\n"
        parts.append(title + shorten(text, share - count(title) - 1, count))
    if len(policies) > len(shown):
        parts.append(f"[{len(policies) - len(shown)} more policies are not shown]")
    if tools:
        parts.append(f"Tools:\n{tools}")
    return "\n\n".join(parts)


def shorten(text: str, budget: int, count: Count) -> str:
    """``text`` without the lines that say least, in at most ``budget`` tokens; ``[…]`` stands where lines are gone."""
    if count(text) <= budget:
        return text
    lines = [cut(line.rstrip(), _LONGEST_LINE) for line in text.splitlines() if line.strip()]
    order = sorted(range(len(lines)), key=lambda number: (_RULE.search(lines[number]) is None, number))
    kept: set[int] = set()
    budget -= count("[…]\n")  # before the first line
    for number in order:
        size = count(f"{lines[number]}\n[…]\n")
        if size <= budget:
            budget -= size
            kept.add(number)
    return "\n".join(_with_gaps(lines, kept)) if kept else ""


def _with_gaps(lines: Sequence[str], kept: set[int]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number in kept:
            yield line
        elif number == 0 or number - 1 in kept:
            yield "[…]"


def _policies(episodes: Mapping[str, Trajectory]) -> list[tuple[list[str], str]]:
    """Labels and text of each policy, those of most episodes first."""
    texts = {label: _system(trajectory) for label, trajectory in episodes.items()}
    counts = Counter(text for text in texts.values() if text)
    return [([label for label in texts if texts[label] == text], text) for text, _ in counts.most_common()]


def _system(trajectory: Trajectory) -> str:
    return "\n".join(message.content or "" for message in trajectory.messages if message.role == "system").strip()


def _tools(trajectories: Sequence[Trajectory]) -> list[str]:
    tools: dict[str, Tool] = {}
    for trajectory in trajectories:
        for tool in trajectory.tools:
            tools.setdefault(tool.name, tool)
    return [_tool(tool) for tool in sorted(tools.values(), key=lambda tool: tool.name)]


def _tool(tool: Tool) -> str:
    required = tool.parameters.get("required")
    required = required if isinstance(required, list) else []
    properties = tool.parameters.get("properties")
    names = properties if isinstance(properties, dict) else {}
    arguments = ", ".join(name if name in required else f"{name}?" for name in names)
    return cut(f"{plain(tool.name)}({arguments}): {plain(tool.description).split('. ')[0]}", _LONGEST_TOOL)
