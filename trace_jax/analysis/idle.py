"""Passed episodes that show no skill: an agent that does nothing passes their task, and the agent did nothing."""

from collections.abc import Collection, Sequence

from trace_jax.contract.trajectory import Trajectory


def idle_passes(trajectories: Sequence[Trajectory], given_away: Collection[str]) -> frozenset[str]:
    """Ids of passed episodes without a tool call, whose task is one of ``given_away``.

    An episode that looked something up before it left the state as it was may have shown that it knows when to refuse.
    """
    return frozenset(
        trajectory.id
        for trajectory in trajectories
        if trajectory.passed
        and trajectory.task in given_away
        and not any(message.tool_calls for message in trajectory.messages if message.role == "assistant")
    )
