"""What a check of a target found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the table. A note is worth reading and no fault. ``remedy`` says how to mend a fault."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def judged(check: str, problems: Sequence[str], fine: str, remedy: str) -> Finding:
    """A finding that fails with the first of its problems, and says how many more there are."""
    if not problems:
        return Finding(check, "ok", fine)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Finding(check, "fail", problems[0] + more, remedy)
