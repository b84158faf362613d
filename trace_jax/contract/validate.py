"""Judges any file of the contract: ``python -m trace_jax.contract.validate PATH``.

The kind of record that a file holds is recognised by its fields. The program prints ``PATH: valid …`` and ends with
status 0, or prints the first problem on stderr and ends with status 1. A wrong command line ends with status 2.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from trace_jax.contract.files import decode
from trace_jax.contract.lines import read_lines
from trace_jax.contract.reading import parse_json, read_bytes
from trace_jax.contract.record import Record
from trace_jax.contract.schemas import RECORDS
from trace_jax.contract.storage import PathLike
from trace_jax.errors import TraceError, UserError

_REMEDY = "give a file of the contract: see trace_jax/contract/schemas"


def validate(path: PathLike) -> str:
    """What ``path`` holds, such as ``"1 route_table"`` or ``"3 trajectory"``. Raises UserError with the first problem.

    A directory or a name that ends with ``.jsonl`` is a log with one record on each line, all of one kind; anything
    else is one document.
    """
    if os.fspath(path).endswith(".jsonl") or epath.Path(path).is_dir():
        kinds = [_kind_of(where, line) for where, line in read_lines(path)]
        if not kinds:
            raise UserError(f"{os.fspath(path)}: holds no whole record: {_REMEDY}")
        if len(set(kinds)) > 1:
            raise UserError(f"{os.fspath(path)}: holds both {' and '.join(sorted(set(kinds))[:2])}: one log, one kind")
        return f"{len(kinds)} {kinds[0]}"
    return f"1 {_kind_of(os.fspath(path), read_bytes(path, _REMEDY))}"


def _kind_of(where: str, data: bytes) -> str:
    """The kind of the record in ``data``, which stands at ``where``."""
    value = parse_json(where, data, _REMEDY)
    if not isinstance(value, dict):
        raise UserError(f"{where}: is not a JSON object: {_REMEDY}")
    kind = max(RECORDS, key=lambda name: _likeness(value, RECORDS[name]))
    if not set(value) & _fields(RECORDS[kind]):
        raise UserError(f"{where}: has no field of any record (it has {', '.join(sorted(value)[:5])}): {_REMEDY}")
    decode(where, data, RECORDS[kind])
    return kind


def _likeness(value: dict[str, Any], model: type[Record]) -> float:
    """How alike the fields of ``value`` and of ``model`` are, from 0 to 1: those of both, over those of either."""
    return len(set(value) & _fields(model)) / len(set(value) | _fields(model))


def _fields(model: type[Record]) -> set[str]:
    return set(model.model_fields) - {"schema_version"}


def main(arguments: Sequence[str]) -> int:
    """Judge the file that ``arguments`` name; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m trace_jax.contract.validate PATH", file=sys.stderr)
        return 2
    try:
        print(f"{arguments[0]}: valid: {validate(arguments[0])}")
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
