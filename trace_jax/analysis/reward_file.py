"""Rewards that came later: JSON Lines of ``{"conversation": ID, "reward": NUMBER}``. An odd line costs itself alone."""

import logging
import math
import os
from dataclasses import dataclass

from trace_jax.contract.lines import read_lines
from trace_jax.contract.reading import NoNumber, parse_json
from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

_REMEDY = 'write {"conversation": ID, "reward": a number from 0 to 1}'
_FIELDS = {"conversation", "reward"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Label:
    """The reward of one conversation, and the line that says so."""

    conversation: str
    reward: float
    where: str


@dataclass(frozen=True)
class RewardFile:
    """``labels`` by conversation; ``refused`` lines have been logged, one line each."""

    labels: dict[str, Label]
    refused: int


def read_rewards(path: PathLike) -> RewardFile:
    """The rewards at ``path``.

    A line that cannot be used is logged with its number, the value and a remedy, and left out. Of two lines for one
    conversation the second is left out if both agree, and both are if they do not. Raises UserError for a missing file.
    """
    labels: dict[str, Label] = {}
    contradicted: set[str] = set()
    refused = 0
    for where, line in read_lines(path):
        if not line.strip():
            continue
        try:
            label = _label(where, line)
            if label.conversation in contradicted:
                raise UserError(f"{where}: conversation {label.conversation!r} once more: its rewards contradict")
            _check_new(label, labels.get(label.conversation))
            labels[label.conversation] = label
        except _Contradiction as error:
            del labels[error.conversation]
            contradicted.add(error.conversation)
            refused += 2
            log.warning("%s", error)
        except UserError as error:
            refused += 1
            log.warning("%s", error)
    if not labels:
        raise UserError(f"{os.fspath(path)}: holds no reward that can be used ({refused} lines are refused): {_REMEDY}")
    return RewardFile(labels, refused)


class _Contradiction(UserError):
    def __init__(self, conversation: str, message: str) -> None:
        super().__init__(message)
        self.conversation = conversation


def _check_new(label: Label, before: Label | None) -> None:
    if before is None:
        return
    line = before.where.rpartition(":")[2]
    if before.reward == label.reward:
        raise UserError(f"{label.where}: conversation {label.conversation!r} has its reward from line {line} already")
    raise _Contradiction(
        label.conversation,
        f"{label.where}: conversation {label.conversation!r} has reward {label.reward:g} here and {before.reward:g} in "
        f"line {line}: both are left out; remove the wrong one",
    )


def _label(where: str, line: bytes) -> Label:
    value = parse_json(where, line, _REMEDY)
    if not isinstance(value, dict) or not value.keys() >= _FIELDS:
        absent = ", ".join(sorted(_FIELDS - value.keys())) if isinstance(value, dict) else "an object"
        raise UserError(f"{where}: lacks {absent}: {_REMEDY}")
    conversation, reward = value["conversation"], value["reward"]
    if not isinstance(conversation, str) or not conversation:
        raise UserError(f"{where}: conversation is {str(conversation)[:60]!r}, no text: {_REMEDY}")
    number = without_rounding(reward) if isinstance(reward, int | float) and not isinstance(reward, bool) else math.nan
    if not 0.0 <= number <= 1.0:  # true for NaN
        shown = (str(reward) if isinstance(reward, NoNumber) else repr(reward))[:60]
        raise UserError(f"{where}: the reward of {conversation!r} is {shown}, no number from 0 to 1: {_REMEDY}")
    return Label(conversation, float(number), where)
