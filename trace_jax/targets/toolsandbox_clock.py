"""A clock that stands still and ids that repeat, for ToolSandbox. It needs the standard library alone."""

import datetime
import random
import sys
import uuid
from types import SimpleNamespace
from typing import Any

NOW = datetime.datetime(2024, 8, 14, 12, tzinfo=datetime.UTC)  # the moment at which every episode takes place


class _StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(NOW.timestamp(), tz)


def stop_clock_and_chance(seed: str) -> None:
    """Gives the checkout's modules a clock that stands still, and ids that are drawn from ``seed``."""
    numbers, clock = random.Random(seed), SimpleNamespace(**vars(datetime) | {"datetime": _StoppedClock})
    random.seed(seed)
    for module in [found for name, found in sys.modules.items() if name.partition(".")[0] == "tool_sandbox"]:
        if getattr(module, "datetime", None) is datetime:
            vars(module)["datetime"] = clock
        if getattr(module, "uuid4", None) is uuid.uuid4:
            vars(module)["uuid4"] = lambda: uuid.UUID(int=numbers.getrandbits(128), version=4)
