"""Metrics of a run: always as JSON Lines, by default for TensorBoard, optionally to Weights & Biases."""

import importlib
import json
import math
import os
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from etils import epath

from trace_jax.contract.lines import LineLog, read_lines
from trace_jax.contract.storage import PathLike, is_local, replace_bytes
from trace_jax.errors import UserError

FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes scalars by step into ``directory``: ``metrics.jsonl``, TensorBoard event files, and a W&B run.

        with MetricsWriter(workdir / "train") as metrics:
            metrics.write(step, {"reward": 0.4, "tokens_per_second": 1200.0})

    ``may_be_nan`` names the metrics that may be NaN, because they are means over nothing. Any other NaN or infinity
    raises UserError with the metric's name, and nothing of that step is written. TensorBoard needs a local
    ``directory``.
    """

    def __init__(
        self,
        directory: PathLike,
        tensorboard: bool = True,
        wandb: bool = False,
        may_be_nan: Collection[str] = (),
    ) -> None:
        self.path = epath.Path(directory) / FILE
        self._may_be_nan = frozenset(may_be_nan)
        self._wandb: Any = _start_wandb(directory) if wandb else None
        self._log = LineLog(self.path)
        self._tensorboard: Any = None
        if tensorboard and is_local(directory):
            from tensorboardX import SummaryWriter  # slow to import, and not needed if TensorBoard is off

            self._tensorboard = SummaryWriter(os.fspath(directory))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the ``values`` of ``step``; the line in ``metrics.jsonl`` is synced to disk.

        Values may be Python, numpy or JAX scalars.
        """
        scalars = {name: float(value) for name, value in values.items()}
        for name, value in scalars.items():
            if not math.isfinite(value) and not (math.isnan(value) and name in self._may_be_nan):
                raise UserError(
                    f"metric {name} is {value} at step {step}: look at the run's last finite values in {self.path}"
                )
        known = {name: None if math.isnan(value) else value for name, value in scalars.items()}
        self._log.append([json.dumps({"step": step, **known}).encode()])
        present = {name: value for name, value in known.items() if value is not None}
        if self._tensorboard is not None:
            for name, scalar in present.items():
                self._tensorboard.add_scalar(name, scalar, step)
        if self._wandb is not None:
            self._wandb.log(present, step=step)

    def close(self) -> None:
        """Flush and close all outputs."""
        self._log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(directory: PathLike) -> dict[int, dict[str, float]]:
    """``{step: {name: value}}`` in order of steps. A null in the file is NaN.

    A resumed run writes the steps after its checkpoint again. If a metric has several values at one step, the last one
    counts. Raises UserError for a line that holds no metrics.
    """
    steps: dict[int, dict[str, float]] = {}
    for where, line in read_lines(epath.Path(directory) / FILE):
        step, values = _row(where, line)
        steps.setdefault(step, {}).update(values)
    return dict(sorted(steps.items()))


def drop_metrics_after(directory: PathLike, step: int) -> None:
    """Remove the lines of the steps after ``step`` from ``metrics.jsonl``, if the file exists."""
    path = epath.Path(directory) / FILE
    if not path.exists():
        return
    kept: dict[str, list[bytes]] = {}  # by file: the log itself, or its shards
    for where, line in read_lines(path):
        lines = kept.setdefault(where.rpartition(":")[0], [])
        if _row(where, line)[0] <= step:
            lines.append(line.rstrip(b"\n") + b"\n")
    if path.is_dir():
        for shard, lines in kept.items():
            if lines:
                replace_bytes(shard, b"".join(lines))
            else:
                epath.Path(shard).unlink()
    else:
        replace_bytes(path, b"".join(kept.get(os.fspath(path), [])))


def _row(where: str, line: bytes) -> tuple[int, dict[str, float]]:
    try:
        row = json.loads(line)
        step = row.pop("step")
        values = {name: math.nan if value is None else float(value) for name, value in row.items()}
        if not isinstance(step, int):
            raise TypeError
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{where}: not a line of metrics: restore the file, or delete that line") from None
    return step, values


def _start_wandb(directory: PathLike) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise UserError("wandb is set to True but not installed: pip install wandb, or set it to False") from None
    path = os.fspath(directory)
    return wandb.init(project="trace-jax", name=epath.Path(path).name, dir=path if is_local(path) else None)
