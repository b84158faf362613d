"""Seeded fuzz: whatever a contract file is damaged to, reading it gives records or one of the project's own errors."""

from pathlib import Path

import pytest
from contract_records import STRATEGIES
from hypothesis import Phase, given, settings
from mutations import mutations

from trace_jax.contract.files import JsonLinesWriter, read_document, read_records
from trace_jax.contract.record import Record
from trace_jax.contract.schemas import RECORDS
from trace_jax.contract.validate import validate
from trace_jax.errors import TraceError

BASES = 5  # valid records of each kind that are damaged


def valid_records(name: str) -> list[bytes]:
    """The same records of a kind each time, as they stand in a file."""
    found: list[bytes] = []

    @settings(max_examples=BASES, database=None, derandomize=True, phases=[Phase.generate])
    @given(STRATEGIES[name])
    def collect(record: Record) -> None:
        found.append(record.model_dump_json().encode())

    collect()
    return found


def survive(path: Path, data: bytes, name: str) -> int:
    """Read ``data`` in every way there is; 1 if it is still a valid record. Anything but TraceError is a failure."""
    path.write_bytes(data)
    sound = 0
    for read in (
        lambda: read_document(path, RECORDS[name]),
        lambda: list(read_records(path, RECORDS[name])),
        lambda: validate(path),
    ):
        try:
            read()
            sound = 1
        except TraceError as error:
            assert str(error).startswith(f"{path}") and "\n" not in str(error)
    JsonLinesWriter(path).close()  # mends the end of the file
    mended = path.read_bytes()
    assert data.startswith(mended) or mended == data + b"\n"
    return sound


def fuzz(path: Path, name: str, count: int) -> None:
    valid = valid_records(name)
    assert all(survive(path, data, name) for data in valid)
    sound = 0
    for number, data in enumerate(valid):
        for damaged in mutations(data, count // len(valid), seed=number):
            sound += survive(path, damaged, name)
    assert sound < 0.9 * count  # the damage is real


@pytest.mark.parametrize("name", RECORDS)
def test_damaged_contract_files_give_records_or_our_own_errors(name: str, tmp_path: Path) -> None:
    fuzz(tmp_path / "file.jsonl", name, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
def test_twenty_thousand_damaged_contract_files(name: str, tmp_path: Path) -> None:
    fuzz(tmp_path / "file.jsonl", name, 20_000 // len(RECORDS))
