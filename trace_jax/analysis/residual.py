"""Residual coverage: a capability whose failures better ones already explain is not worth an adapter of its own."""

from collections.abc import Sequence

from trace_jax.analysis.thresholds import needed


def newly_covered(failures: Sequence[frozenset[str]], minimum: float, failed: int) -> list[tuple[int, bool]]:
    """For each capability in rank order: how many failures no kept one before it covers, and whether it is kept.

    ``failures[i]`` are the failed trajectories labelled LACKING by the i-th best. It is kept if and only if the new
    ones are at least the share ``minimum`` of all ``failed`` trajectories.
    """
    covered: set[str] = set()
    verdicts = []
    for lacking in failures:
        new = len(lacking - covered)
        kept = failed > 0 and new >= needed(minimum, failed)
        if kept:
            covered |= lacking
        verdicts.append((new, kept))
    return verdicts
