"""Progress: bars on a terminal, plain lines if the output goes to a file."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from trace_jax.contract.trajectory import Trajectory

SECONDS_BETWEEN_LINES = 10.0


class Stage:
    """A stage of ``total`` steps, which ``advance`` counts. ``Progress.stage`` makes it.

    A stage that turns out to be longer, because a designer tries again, shows as many steps as it has made.
    """

    def __init__(self, owner: "Progress", name: str, total: int, done: int) -> None:
        self.name = name
        self.total = total
        self.done = done
        self._owner = owner
        self._tokens = 0
        self._reward: float | None = None
        self._episodes = self._graded = 0
        self._total_reward = 0.0
        self._started = time.monotonic()
        self._begun_at = done
        self._last_line = self._started
        self._task = owner.bars.add_task(name, total=total, completed=done, status="") if owner.bars else None

    def advance(self, steps: int = 1, reward: float | None = None, tokens: int = 0) -> None:
        """Count ``steps`` more. ``reward`` is the latest mean, ``tokens`` the tokens processed since the last call."""
        self.done += steps
        self.total = max(self.total, self.done)
        self._tokens += tokens
        self._reward = self._reward if reward is None else reward
        if self._owner.bars is not None and self._task is not None:
            self._owner.bars.update(self._task, total=self.total, completed=self.done, status=self._status())
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._owner.print(self._line())

    def episode(self, trajectory: Trajectory) -> None:
        """Count one more episode. The stage shows the mean reward of graded episodes, the broken ones, and the rate."""
        self._episodes += 1
        if trajectory.reward is not None:
            self._graded += 1
            self._total_reward += trajectory.reward
        mean = self._total_reward / self._graded if self._graded else None
        usage = trajectory.usage
        self.advance(reward=mean, tokens=usage.prompt_tokens + usage.completion_tokens)

    def finish(self, note: str = "") -> None:
        """End the stage. ``note`` (a result in a few words) stays on the terminal."""
        seconds = time.monotonic() - self._started
        if self._owner.bars is not None and self._task is not None:
            self._owner.bars.remove_task(self._task)
        parts = [f"{self.name}: {self.done}/{self.total}", f"{seconds:.1f} s", self._status(), note]
        self._owner.print("  ".join(part for part in parts if part))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish("" if kind is None else f"stopped by {kind.__name__}")

    def seconds_left(self) -> float | None:
        """Seconds that the remaining steps take at the average speed so far; None before the first step."""
        steps = self.done - self._begun_at
        if steps <= 0:
            return None
        return (time.monotonic() - self._started) / steps * max(self.total - self.done, 0)

    def _status(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        parts = [] if self._reward is None else [f"reward {self._reward:.3f}"]
        if broken := self._episodes - self._graded:
            parts.append(f"{broken} broken")
        if self._episodes:
            parts.append(f"{self._episodes / seconds:.1f} episodes/s")
        if self._tokens:
            parts.append(f"{self._tokens / seconds:,.0f} tokens/s")
        return "  ".join(parts)

    def _line(self) -> str:
        left = self.seconds_left()
        parts = [f"{self.name}: {self.done}/{self.total}", self._status(), "" if left is None else f"{left:.0f} s left"]
        return "  ".join(part for part in parts if part)


class Progress:
    """Shows the stages of a run: name, step, reward, tokens per second, time left.

        with Progress() as progress, progress.stage("train", total=25) as stage:
            stage.advance(reward=0.4, tokens=1200)

    A terminal shows bars. Other outputs get one plain line per stage every ten seconds, and one at its end. Stages may
    nest.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, emoji=False, soft_wrap=True)
        self.bars: RichProgress | None = None
        if self._console.is_terminal:
            self.bars = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                refresh_per_second=4,
            )

    def stage(self, name: str, total: int, done: int = 0) -> Stage:
        """Start a stage of ``total`` steps, of which an earlier run did ``done``. Use it as a context manager."""
        return Stage(self, name, total, done)

    def print(self, line: str) -> None:
        """Print a plain line, above the bars if there are any."""
        self._console.print(line, markup=False)

    def __enter__(self) -> Self:
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()
