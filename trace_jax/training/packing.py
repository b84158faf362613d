"""Packing samples into rows of bounded length: a group's prompt is stored once, and shards are balanced."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trace_jax.errors import UserError
from trace_jax.models.buckets import bucket
from trace_jax.training.sample import Sample, shared_prefix

_STEPS = 4  # row lengths an octave


@dataclass
class Unit:
    """Samples that share their first ``prefix`` tokens, which a row holds once; a lone sample has ``prefix`` 0."""

    prefix: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.prefix + sum(sample.length - self.prefix for sample in self.samples)

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
    *,
    micro_batch_tokens: int,
    shards: int,
    attention_tokens: float,
    row_tokens: int | None = None,
) -> Packing:
    """Pack ``samples`` into rows by first-fit-decreasing, and deal the rows to micro-batches and shards.

    Args:
        micro_batch_tokens: bound of the tokens that a shard computes at once.
        attention_tokens: the row length at which attention costs as much as all else.
        row_tokens: length of the rows; where a sample is longer, twice that, four times, …, so that all batches have
            few lengths. None: the length that costs least for these samples. Longer rows repeat fewer prompts, but
            their attention costs more.

    Raises:
        UserError: a sample is longer than ``micro_batch_tokens``.
    """
    longest = max(sample.length for sample in samples)
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
    """Samples that may share a prompt, in order of the first sample of each group."""
    groups: dict[tuple[int, int], list[Sample]] = {}
    for number, sample in enumerate(samples):
        key = (sample.adapter, sample.group) if sample.group is not None else (-1, number)
        groups.setdefault(key, []).append(sample)
    return list(groups.values())


def _units(group: list[Sample], row_tokens: int) -> list[Unit]:
    """The group in as few units of at most ``row_tokens`` as first-fit-decreasing finds."""
    prefix = shared_prefix(group) if len(group) > 1 else 0
    if prefix == 0:
        return [Unit(0, [sample]) for sample in group]
    units: list[Unit] = []
    for sample in sorted(group, key=lambda sample: -sample.length):
        fitting = (unit for unit in units if unit.length + sample.length - prefix <= row_tokens)
        unit = next(fitting, None)
        if unit is None:
            units.append(unit := Unit(prefix))
        unit.samples.append(sample)
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
    """Deal rows to micro-batches of at most ``most`` rows a shard: longest first, to the shard with least tokens."""
    number = -(-len(rows) // (most * shards))
    bins: list[list[Row]] = [[] for _ in range(number * shards)]
    room = -(-len(rows) // (number * shards))
    for row in sorted(rows, key=lambda row: -row.length):
        free = (rows_of_bin for rows_of_bin in bins if len(rows_of_bin) < room)
        min(free, key=lambda rows_of_bin: sum(row.length for row in rows_of_bin)).append(row)
    return [bins[i : i + shards] for i in range(0, len(bins), shards)]
