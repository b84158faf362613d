"""Versions of an adapter: NAME@STEP is what it was after STEP updates, and never anything else."""

from trace_jax.errors import UserError


def versioned(name: str, step: int) -> str:
    """The name under which engines know the weights after ``step`` updates."""
    return f"{name}@{step}"


def version_of(adapter: str | None) -> int:
    """The number of updates behind what sampled a segment; the base is 0, an adapter that has learnt nothing.

    Raises UserError for a name without a version.
    """
    if adapter is None:
        return 0
    version = adapter.rpartition("@")[2]
    if not version.isdecimal():
        raise UserError(f"adapter {adapter!r} names no version: train on what NAME@STEP, or the base, has sampled")
    return int(version)
