"""Records on disk: single documents that are replaced atomically, and JSON Lines that survive a kill.

Every function takes a local path or an object-store path (``gs://…``, ``s3://…``).

    write_document(workdir / "routes.json", table)
    table = read_document(workdir / "routes.json", RouteTable)
    with JsonLinesWriter(workdir / "trajectories.jsonl") as writer:
        writer.append(trajectory)
    for trajectory in read_records(workdir / "trajectories.jsonl", Trajectory): ...

Every record is written with its seal (see ``trace_jax.contract.seal``), and refused if it no longer fits it.
"""

import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trace_jax.contract.lines import LineLog, read_lines
from trace_jax.contract.reading import WRITTEN_BY_A_STAGE, read_bytes
from trace_jax.contract.record import Record
from trace_jax.contract.seal import FIELD, check_seal, sealed, unsealed
from trace_jax.contract.storage import PathLike, replace_bytes
from trace_jax.errors import UserError

R = TypeVar("R", bound=Record)
_REMEDY = "correct it there, or restore the file"


def write_document(path: PathLike, record: Record) -> None:
    """Write ``record`` to ``path`` whole or not at all; missing directories are made.

    Raises DiskFullError when the disk is full, and UserError for a record that would not be read back equal (one with a
    NaN or a tuple in a free-form field).
    """
    replace_bytes(path, _encode(path, record, indent=2) + b"\n")


def read_document(path: PathLike, model: type[R]) -> R:
    """The record in ``path``. Raises UserError when the file is missing, not JSON, or not a ``model``."""
    return decode(os.fspath(path), read_bytes(path, WRITTEN_BY_A_STAGE), model)


class JsonLinesWriter:
    """Appends records to ``path``, each durable before ``append`` returns.

    On a local disk, a torn last line that a kill left is cut off when the file is opened again. On an object store,
    ``path`` is a directory of numbered immutable shards, one for each ``append`` or ``extend``: prefer ``extend``.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._log = LineLog(path)

    def append(self, record: Record) -> None:
        """Append one record and flush it to the device."""
        self.extend([record])

    def extend(self, records: Iterable[Record]) -> None:
        """Append all ``records`` with one flush; nothing is written if any of them is refused."""
        self._log.append([_encode(self.path, record) for record in records])

    def close(self) -> None:
        """Release the file; further appends fail."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(path: PathLike, model: type[R]) -> Iterator[R]:
    """The records of the JSON Lines at ``path``, in the order of writing.

    A torn last line is dropped with a warning. Raises UserError with file and line for any other line that is no
    ``model``, and for a missing file: check ``epath.Path(path).exists()`` first where there may be nothing yet.
    """
    for where, line in read_lines(path):
        yield decode(where, line, model)


def _encode(path: PathLike, record: Record, indent: int | None = None) -> bytes:
    name = type(record).__name__
    try:
        data = record.model_dump_json(indent=indent).encode()
        same = type(record).model_validate_json(data) == record
    except (ValueError, RecursionError) as error:
        raise UserError(f"{os.fspath(path)}: {name} cannot be written as JSON: {one_line(error)}") from None
    if not same:
        raise UserError(
            f"{os.fspath(path)}: {name} would not be read back equal: free-form fields may hold only JSON values "
            "(no NaN, infinity, tuple, or key that is not a string)"
        )
    return sealed(data)


def decode(where: str, data: bytes, model: type[R]) -> R:
    """The ``model`` in ``data``, which stands at ``where``. Raises UserError with the first problem."""
    data, stated, found = unsealed(data.removeprefix(BOM_UTF8))  # editors on Windows write the mark
    try:
        record = model.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"{where}: not a valid {model.__name__}: {one_line(error)}: {_REMEDY}") from None
    if "schema_version" not in record.model_fields_set:
        raise UserError(
            f"{where}: {model.__name__} without schema_version; this build reads {model.version()}: "
            "add the field, or write the file with this build"
        )
    check_seal(where, stated, found)
    return record


def plain_message(problem: ErrorDetails) -> str:
    """The text of one problem of a validation error, without the names of classes of this program."""
    return re.sub(r" or instance of \w+", "", problem["msg"].removeprefix("Value error, "))


def one_line(error: Exception) -> str:
    """The first problem of a validation error as ``field: message (got value)``; of other errors the text."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = min(error.errors(include_url=False), key=lambda problem: problem["loc"] == (FIELD,))
    if first["loc"] == (FIELD,):
        return "its seal, sha256, is not the last field: it was edited: restore it, or take the seal away"
    field = ".".join(str(part) for part in first["loc"])
    value = "" if first["type"] in ("value_error", "json_invalid", "missing") else f" (got {repr(first['input'])[:80]})"
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return " ".join(f"{field + ': ' if field else ''}{plain_message(first)}{value}{more}".split())
