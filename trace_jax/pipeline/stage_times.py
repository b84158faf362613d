"""How long the stages of a run took, on file, so that an interruption loses none of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.record import Record


class StageTime(Record):
    """How long a stage took. A stage that was interrupted has several records."""

    stage: str
    seconds: float


class StageTimes:
    """The stage times in the JSON Lines at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            with JsonLinesWriter(self._path) as writer:
                writer.append(StageTime(stage=name, seconds=time.monotonic() - started))

    def seconds(self) -> dict[str, float]:
        """Total seconds of each stage, in the order of first use."""
        total: dict[str, float] = {}
        for row in read_records(self._path, StageTime):
            total[row.stage] = total.get(row.stage, 0.0) + row.seconds
        return total
