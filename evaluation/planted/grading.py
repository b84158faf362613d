"""The same episodes as other graders would have checked them."""

from typing import Literal

from trace_jax.contract.trajectory import Check, Trajectory

Style = Literal["aspects", "coarse", "none"]
STYLES: tuple[Style, ...] = ("aspects", "coarse", "none")


def with_checks(trajectory: Trajectory, style: Style) -> Trajectory:
    """The same episode with the checks of another grader.

    ``aspects``: checks as the target names them; ``coarse``: one for the state and one for what was said; ``none``.
    """
    if style == "aspects":
        return trajectory
    if style == "none":
        return trajectory.replace(checks=())
    said = [check for check in trajectory.checks if check.name.endswith((".said", ".total"))]
    rest = [c for c in trajectory.checks if c not in said and c.name not in ("task.complete", "reply.short")]
    checks = (
        Check(name="state", passed=all(c.passed for c in rest)),
        Check(name="reply", passed=all(c.passed for c in said)),
    )
    return trajectory.replace(checks=checks)
