"""Compaction: an episode as a page that people and language models can read."""

import re

from trace_jax.contract.trajectory import Trajectory

_MARKS = {"system": "S", "user": "U", "assistant": "A", "tool": "="}


def compact(trajectory: Trajectory, text_limit: int = 400, result_limit: int = 300) -> str:
    """One line for each message: U user, A agent, > call, = result. The policy is left out; long texts are cut.

    ``text_limit`` and ``result_limit`` are in characters.

    >>> U: Please cancel order O12.
    >>> > cancel_order(order_id='O12')
    >>> = {"ok": true}
    """
    outcome = f"broken: {trajectory.error}" if trajectory.broken else f"reward {trajectory.reward:g}"
    lines = [f"# {trajectory.id} ({trajectory.target}, task {trajectory.task}, {outcome})"]
    for message in trajectory.messages:
        if message.role == "system":
            continue
        limit = result_limit if message.role == "tool" else text_limit
        if message.content:
            lines.append(f"{_MARKS[message.role]}: {_cut(message.content, limit)}")
        for call in message.tool_calls:
            given = (
                call.raw_arguments or ""
                if call.arguments is None
                else ", ".join(f"{k}={v!r}" for k, v in call.arguments.items())
            )
            lines.append(f"> {call.name}({given})")
    lines += [f"check {check.name}: failed {check.detail}".rstrip() for check in trajectory.checks if not check.passed]
    return "\n".join(lines)


def _cut(text: str, limit: int) -> str:
    plain = re.sub(r"\s+", " ", text).strip()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
