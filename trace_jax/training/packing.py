"""Samples into rows of a fixed token budget: first-fit-decreasing, a group's prompt stored once, shards balanced."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trace_jax.errors import UserError
from trace_jax.models.buckets import bucket
from trace_jax.training.sample import Sample, shared_prefix

_STEPS = 4  # row lengths an octave


@dataclass
class Unit:
    """Samples that share their first ``prefix`` tokens, which a row then holds once; a lone sample shares none."""

    prefix: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.prefix + sum(one.length - self.prefix for one in self.samples)

    @property
    def adapter(self) -> int:
        return self.samples[0].adapter


@dataclass
class Row:
    """Units of one adapter that fill one packed row."""

    units: list[Unit]

    @property
    def length(self) -> int:
        return sum(unit.length for unit in self.units)


@dataclass(frozen=True)
class Packing:
    """``batches[i][shard]`` are the rows that one shard computes in micro-batch i; each at most ``row_tokens`` long."""

    row_tokens: int
    batches: list[list[list[Row]]]


def pack(
    samples: Sequence[Sample],
    micro_batch_tokens: int,
    shards: int,
    attention_tokens: float,
    row_tokens: int | None = None,
) -> Packing:
    """Rows for ``samples``, at most ``micro_batch_tokens`` tokens of them on each shard at once.

    Rows are ``row_tokens`` long or, where a sample is longer, twice that, four times, …: few lengths in all batches.
    With None their length is the one that costs least for these samples: longer rows repeat fewer prompts, and their
    attention costs more. ``attention_tokens`` is the row length at which attention costs as much as all else.

    Raises:
        UserError: a sample is longer than ``micro_batch_tokens``.
    """
    longest = max(one.length for one in samples)
    if longest > micro_batch_tokens:
        raise UserError(
            f"a sample of {longest} tokens does not fit micro_batch_tokens {micro_batch_tokens}: raise it, or lower "
            "max_episode_tokens, the bound of a context"
        )
    groups = _groups(samples)
    whole = max(Unit(shared_prefix(group), group).length for group in groups)
    lengths = [bucket(longest, steps=_STEPS)] if row_tokens is None else [row_tokens]
    while row_tokens is not None and lengths[0] < longest:
        lengths[0] *= 2
    while row_tokens is None and lengths[-1] < whole:
        lengths.append(bucket(lengths[-1] + 1, steps=_STEPS))
    best: tuple[float, int, list[Row]] | None = None
    for tokens in sorted({min(length, micro_batch_tokens) for length in lengths}):
        rows = _first_fit([unit for group in groups for unit in _units(group, tokens)], tokens)
        cost = -(-len(rows) // shards) * shards * tokens * (1 + tokens / attention_tokens)
        if best is None or cost < best[0]:
            best = cost, tokens, rows
    assert best is not None
    _, tokens, rows = best
    return Packing(tokens, _deal(rows, micro_batch_tokens // tokens, shards))


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that may share a prompt, in order of their first."""
    groups: dict[tuple[int, int], list[Sample]] = {}
    for number, one in enumerate(samples):
        key = (one.adapter, one.group) if one.group is not None else (-1, number)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _units(group: list[Sample], row_tokens: int) -> list[Unit]:
    """The group in as few units of at most ``row_tokens`` as first-fit-decreasing finds."""
    prefix = shared_prefix(group) if len(group) > 1 else 0
    if prefix == 0:
        return [Unit(0, [one]) for one in group]
    units: list[Unit] = []
    for one in sorted(group, key=lambda one: -one.length):
        fitting = (unit for unit in units if unit.length + one.length - prefix <= row_tokens)
        unit = next(fitting, None)
        if unit is None:
            units.append(unit := Unit(prefix))
        unit.samples.append(one)
    return units


def _first_fit(units: list[Unit], row_tokens: int) -> list[Row]:
    rows: list[tuple[Row, int]] = []
    for unit in sorted(units, key=lambda unit: -unit.length):
        for index, (row, left) in enumerate(rows):
            if left >= unit.length and row.units[0].adapter == unit.adapter:
                row.units.append(unit)
                rows[index] = row, left - unit.length
                break
        else:
            rows.append((Row([unit]), row_tokens - unit.length))
    return [row for row, _ in rows]


def _deal(rows: list[Row], most: int, shards: int) -> list[list[list[Row]]]:
    """Rows to micro-batches of at most ``most`` rows a shard: longest first, to the shard that has the least."""
    number = -(-len(rows) // (most * shards))
    bins: list[list[Row]] = [[] for _ in range(number * shards)]
    room = -(-len(rows) // (number * shards))
    for row in sorted(rows, key=lambda row: -row.length):
        free = (one for one in bins if len(one) < room)
        min(free, key=lambda one: sum(row.length for row in one)).append(row)
    return [bins[i : i + shards] for i in range(0, len(bins), shards)]
