"""Torn, endless and deep lines: mended or refused in linear time, in bounded memory, and never by a traceback."""

import errno
import logging
import os
import time
from pathlib import Path

import pytest
from contract_records import append

from trace_jax.contract import lines
from trace_jax.contract.capability import Candidates
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.lines import LineLog, read_lines
from trace_jax.contract.storage import DiskFullError, replace_bytes
from trace_jax.errors import UserError

FIRST, NEW = (Candidates(analyst=text, capabilities=()) for text in ("first", "new"))

TAILS = {
    "text": b'{"schema_version":1,"analyst":"' + b"x" * 40_000_000,
    "objects": b'{"a":' * 8_000_000,
    "lists": b"[" * 40_000_000,
    "closed": b'{"a":' * 4_000_000 + b"}" * 3_999_999,
    "zeros": b"\0" * 40_000_000,
    "not UTF-8": b"\xff" * 40_000_000,
}


@pytest.mark.parametrize("tail", TAILS)
def test_forty_megabytes_of_a_torn_line_cost_a_second_or_two(tail: str, tmp_path: Path, caplog) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [FIRST])
    with path.open("ab") as file:
        file.write(TAILS[tail])
    started = time.process_time()
    assert list(read_records(path, Candidates)) == [FIRST]
    append(path, [NEW])
    assert time.process_time() - started < 5
    assert f"log.jsonl:2: dropped a torn last line of {len(TAILS[tail])} bytes" in caplog.text
    assert f"cut off a torn last line of {len(TAILS[tail])} bytes" in caplog.text
    assert list(read_records(path, Candidates)) == [FIRST, NEW]


@pytest.mark.parametrize("size", [3, 4, 5, 8, 9])
def test_lines_are_put_together_whatever_the_blocks_are(size: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", size)
    path = tmp_path / "log.jsonl"
    for text in (b"", b"\n", b"a\r\nb\n", b"\n\n", b"abcd\nefgh\n", b"abc\n" * 5, b"abcdefgh" * 3 + b"\n"):
        path.write_bytes(text)
        assert [line for _, line in read_lines(path)] == text.splitlines(keepends=True)
        for tail, kept in ((b'{"a": 1}', b'{"a": 1}\n'), (b'{"a": 1', b""), (b"7", b"")):
            path.write_bytes(text + tail)
            read = [line for _, line in read_lines(path)]
            assert b"".join(read) == text + kept.rstrip(b"\n")
            LineLog(path).close()
            assert path.read_bytes() == text + kept


def test_a_line_longer_than_can_be_read_is_refused_and_a_torn_one_cut(tmp_path: Path, monkeypatch, caplog) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [FIRST])
    monkeypatch.setattr(lines, "MAX_BYTES", 1000)
    monkeypatch.setattr(lines, "_BLOCK", 64)
    good = path.read_bytes()
    path.write_bytes(good + b'{"a":"' + b"x" * 5000 + b'"}')  # even if it were whole, it could not be read again
    assert list(read_records(path, Candidates)) == [FIRST]
    assert "dropped a torn last line of 5008 bytes" in caplog.text
    path.write_bytes(good + b"x" * 5000 + b"\n" + good)
    with pytest.raises(UserError, match="log.jsonl:2: a line of 5001 bytes; 1000 can be read"):
        list(read_records(path, Candidates))


def test_documents_that_cannot_be_read_are_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "document.json"
    for data, words in (
        (b"\xff\xfe", "not a valid Candidates"),
        (b"[" * 100_000, "not a valid Candidates: .*recursion limit"),
        (b'{"a":' * 100_000, "not a valid Candidates: .*recursion limit"),
        (b"1" * 10_000, "not a valid Candidates"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"document.json: {words}"):
            read_document(path, Candidates)
    with pytest.raises(UserError, match=f"{tmp_path}: is a directory, not a file"):
        read_document(tmp_path, Candidates)
    with pytest.raises(UserError, match="cannot be read"):
        read_document("a\0b", Candidates)
    with pytest.raises(UserError, match="cannot be read"):
        read_document(path / "below", Candidates)
    monkeypatch.setattr("trace_jax.contract.reading.MAX_BYTES", 10)
    write_document(path, FIRST)
    with pytest.raises(UserError, match=r"document.json: \d+ bytes, more than the 10 that are read at once"):
        read_document(path, Candidates)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_and_the_room_needed(code: int, tmp_path: Path, monkeypatch) -> None:
    document, log = tmp_path / "document.json", tmp_path / "log.jsonl"
    write_document(document, FIRST)
    append(log, [FIRST])
    size = len(document.read_bytes())

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    words = rf"the disk is full \({os.strerror(code)}\): {{}} bytes are needed, \d+ are free: make room"
    with pytest.raises(DiskFullError, match=f"{document}: {words.format(size - 2)}"):
        replace_bytes(document, b"x" * (size - 2))
    with JsonLinesWriter(log) as writer, pytest.raises(OSError, match=f"{log}: {words.format(r'[0-9]+')}"):
        writer.append(NEW)
    monkeypatch.undo()
    assert read_document(document, Candidates) == FIRST and list(read_records(log, Candidates)) == [FIRST]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["document.json", "log.jsonl"]
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(UserError, match="new.jsonl: the disk is full"):
        JsonLinesWriter(tmp_path / "new.jsonl")


def test_other_faults_of_a_disk_keep_their_names(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_document(tmp_path / "document.json", FIRST)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_byte_order_mark_is_no_fault(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [FIRST])
    line = path.read_bytes().rstrip(b"\n")
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\n\xef\xbb\xbf" + line + end)
    assert list(read_records(path, Candidates)) == [FIRST, FIRST]
    append(path, [NEW])
    assert list(read_records(path, Candidates)) == [FIRST, FIRST, NEW]
    document = tmp_path / "document.json"
    write_document(document, FIRST)
    document.write_bytes(b"\xef\xbb\xbf" + document.read_bytes())
    assert read_document(document, Candidates) == FIRST


def test_a_line_that_cannot_be_read_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append(path, [FIRST])
    path.write_bytes(path.read_bytes().replace(b"first", b"fi\xf0\x9f", 1))
    with pytest.raises(UserError, match=r"log.jsonl:1: not a valid Candidates: .*: correct it there, or restore"):
        list(read_records(path, Candidates))
