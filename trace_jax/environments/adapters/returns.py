"""Seeds as tasks and returns as rewards, for environments of libraries that have neither splits nor a scale."""

import math
import re

from trace_jax.contract.trajectory import Split
from trace_jax.errors import UserError

FIRST_SEED: dict[Split, int] = {"train": 0, "held_out": 3_000_000}
_SLACK = 1e-9  # of rounding in a sum of rewards


class ReturnRange:
    """The declared least and greatest return of an episode, which become the rewards 0 and 1.

    Raises:
        UserError: no range was declared, or it is none.
    """

    def __init__(self, name: str, returns: tuple[float, float] | None) -> None:
        if returns is None:
            raise UserError(
                f"target {name!r}: declare the least and greatest return of an episode, which become the rewards 0 "
                'and 1: target.parameters={"returns": [0, 1]}'
            )
        self.low, self.high = returns
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"target {name!r}: returns are {list(returns)}: give two finite numbers, the smaller first")

    def reward(self, total: float) -> float:
        """The reward of a return. Raises ValueError outside the declared range: nothing is clipped."""
        share = (total - self.low) / (self.high - self.low)
        if not -_SLACK <= share <= 1 + _SLACK:  # true for NaN
            raise ValueError(f"the return {total:g} is outside the declared range [{self.low:g}, {self.high:g}]")
        return min(max(share, 0.0), 1.0)


def seeds(split: Split, number: int) -> tuple[int, ...]:
    """The tasks of a split."""
    return tuple(range(FIRST_SEED[split], FIRST_SEED[split] + number))


def file_name(name: str) -> str:
    """``name`` in letters that a directory may have."""
    return re.sub(r"\W+", "_", name).strip("_")
