"""Residual coverage: a capability whose failures better ones already explain is not worth an adapter of its own."""

from collections.abc import Sequence


def newly_covered(failures: Sequence[frozenset[str]], minimum: float, failed: int) -> list[tuple[int, bool]]:
    """For each capability in rank order: how many failures no kept one before it covers, and whether it is kept.

    ``failures[i]`` are the failed trajectories labelled LACKING by the i-th best. It is kept iff the new ones are
    at least ``minimum`` of all ``failed`` trajectories.
    """
    covered: set[str] = set()
    verdicts = []
    for own in failures:
        new = own - covered
        kept = failed > 0 and len(new) / failed >= minimum
        if kept:
            covered |= own
        verdicts.append((len(new), kept))
    return verdicts
