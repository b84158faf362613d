"""Versions of an adapter: NAME@STEP names its weights after STEP updates, and never any others."""

from trace_jax.errors import UserError


def versioned(name: str, step: int) -> str:
    """The name under which engines know the weights after ``step`` updates."""
    return f"{name}@{step}"


def version_of(adapter: str | None) -> int:
    """The number of updates of the weights that sampled a segment. The base (None) counts as 0 updates.

    Raises UserError for a name without a version.
    """
    if adapter is None:
        return 0
    version = adapter.rpartition("@")[2]
    if not version.isdecimal():
        raise UserError(
            f"adapter {adapter!r} names no version: train on segments that NAME@STEP or the base has sampled"
        )
    return int(version)
