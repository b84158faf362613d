"""Files survive kills, and refuse what they do not know in one line that says where and what to do."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from contract_records import append

from trace_jax.contract.capability import Candidate, Candidates
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.trajectory import Message, Policy, Trajectory
from trace_jax.errors import UserError


def candidates(text: str) -> Candidates:
    return Candidates(analyst=text, capabilities=(Candidate(name="look_up", description="é🙂\n"),))


FIRST, SECOND, LAST, NEW = (candidates(text) for text in ("first", "second", "last é", "new"))


def refusal(path, model=Candidates, read=read_document) -> str:
    """The one-line error that reading ``path`` gives."""
    with pytest.raises(UserError) as error:
        list(read(path, model))
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_last_line_torn_at_every_byte(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    append(path, [FIRST, SECOND, LAST])
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for end in range(start, len(whole) + 1):
        caplog.clear()
        path.write_bytes(whole[:end])
        # Without only its newline the record is complete, and kept.
        kept = [FIRST, SECOND, LAST] if end >= len(whole) - 1 else [FIRST, SECOND]
        torn = start < end < len(whole) - 1
        assert list(read_records(path, Candidates)) == kept
        assert ("log.jsonl:3: dropped a torn last line" in caplog.text) == torn
        append(path, [NEW])
        assert ("cut off a torn last line" in caplog.text) == torn
        assert list(read_records(path, Candidates)) == [*kept, NEW]
        assert path.read_bytes().endswith(b"\n")


def test_torn_line_longer_than_a_block_is_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    append(path, [FIRST, candidates("x" * 300_000)])
    path.write_bytes(path.read_bytes()[:-1000])
    append(path, [NEW])
    assert list(read_records(path, Candidates)) == [FIRST, NEW]


def test_a_file_of_one_torn_line_becomes_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"schema_ver')
    assert list(read_records(path, Candidates)) == []
    append(path, [NEW])
    assert list(read_records(path, Candidates)) == [NEW]


@pytest.mark.parametrize("damage", [b"{]\n", b"\n", b"\0\0\0\n", b'{"schema_version":1}\n', b"\xff\xfe\n", b"[1]\n"])
def test_corrupt_middle_line_is_refused_by_file_and_line(damage, tmp_path):
    path = tmp_path / "log.jsonl"
    append(path, [FIRST, SECOND])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + lines[1])
    reader = read_records(path, Candidates)
    assert next(reader) == FIRST
    with pytest.raises(UserError, match="log.jsonl:2: not a valid Candidates: ") as error:
        next(reader)
    assert "\n" not in str(error.value)


def test_a_killed_writer_keeps_every_line_that_append_returned_for(tmp_path):
    program = """
        import sys
        from trace_jax.contract.capability import Candidates
        from trace_jax.contract.files import JsonLinesWriter
        with JsonLinesWriter(sys.argv[1]) as writer:
            number = 0
            while True:
                writer.append(Candidates(analyst=str(number), capabilities=()))
                print(number, flush=True)
                number += 1
    """
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    found = [int(record.analyst) for record in read_records(path, Candidates)]
    assert found[: len(acknowledged)] == acknowledged
    assert found == list(range(len(found)))


def test_a_killed_replacement_leaves_the_old_document_or_the_new(tmp_path):
    program = """
        import sys
        from trace_jax.contract.capability import Candidates
        from trace_jax.contract.files import write_document
        for number in range(10**9):
            write_document(sys.argv[1], Candidates(analyst=str(number) + "x" * 200_000, capabilities=()))
            print(number, flush=True)
    """
    path = tmp_path / "document.json"
    for delay in (0.0, 0.003, 0.011):
        command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged = int(process.stdout.readline())
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
        found = int(read_document(path, Candidates).analyst.rstrip("x"))
        assert found in (acknowledged, acknowledged + 1)


def test_a_failed_replacement_keeps_the_old_document_and_no_scraps(tmp_path, monkeypatch):
    path = tmp_path / "document.json"
    write_document(path, FIRST)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_document(path, SECOND)
    assert read_document(path, Candidates) == FIRST
    assert [entry.name for entry in tmp_path.iterdir()] == ["document.json"]


def test_a_full_disk_leaves_no_part_of_an_append(tmp_path):
    path = tmp_path / "log.jsonl"
    append(path, [FIRST])
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with JsonLinesWriter(path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, hard))  # the kernel writes 40 bytes, then refuses
        try:
            with pytest.raises(UserError, match=r"log.jsonl: the disk is full .*: \d+ bytes are needed, \d+ are free"):
                writer.append(SECOND)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        assert path.stat().st_size == size
        writer.append(LAST)
    assert list(read_records(path, Candidates)) == [FIRST, LAST]


VERSION = FIRST.schema_version


def test_other_versions_are_refused_naming_both(tmp_path):
    path = tmp_path / "document.json"
    write_document(path, FIRST)
    content = json.loads(path.read_text())
    for version in (0, 1, VERSION - 1, VERSION + 1, str(VERSION), None):
        path.write_text(json.dumps({**content, "schema_version": version}))
        message = refusal(path)
        assert f"schema_version {version!r}" in message and f"reads {VERSION}" in message
        assert "new work directory" in message
    del content["schema_version"]
    path.write_text(json.dumps(content))
    assert "without schema_version" in refusal(path) and f"reads {VERSION}" in refusal(path)
    path.write_text(json.dumps({**content, "schema_version": 7}) + "\n")
    assert f"{path}:1: " in refusal(path, read=read_records) and "schema_version 7" in refusal(path, read=read_records)


def test_a_newer_model_writes_its_version_and_refuses_older_ones(tmp_path):
    class Newer(Candidates):
        schema_version: int = VERSION + 1

    write_document(tmp_path / "old.json", FIRST)
    assert f"schema_version {VERSION}; this build reads {VERSION + 1}" in refusal(tmp_path / "old.json", Newer)
    newer = Newer(analyst="a", capabilities=())
    write_document(tmp_path / "new.json", newer)
    assert json.loads((tmp_path / "new.json").read_text())["schema_version"] == VERSION + 1
    assert read_document(tmp_path / "new.json", Newer) == newer


def test_unknown_fields_are_refused_by_name_at_every_depth(tmp_path):
    path = tmp_path / "document.json"
    write_document(path, FIRST)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "colour": "red"}))
    assert "colour" in refusal(path)
    content["capabilities"][0]["weight"] = 3
    path.write_text(json.dumps(content))
    assert "capabilities.0.weight" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"x"', "{}"])
def test_half_written_documents_are_refused(text, tmp_path):
    (tmp_path / "document.json").write_text(text)
    assert "not a valid Candidates" in refusal(tmp_path / "document.json")


def test_missing_files_say_so(tmp_path):
    assert "no such file" in refusal(tmp_path / "document.json")
    assert "no such file" in refusal(tmp_path / "log.jsonl", read=read_records)


def test_a_nan_reward_and_wrong_types_are_refused_with_the_value(tmp_path):
    trajectory = Trajectory(
        id="t",
        target="helpdesk",
        task="1",
        split="train",
        seed=0,
        trial=0,
        policy=Policy(base="b"),
        messages=(Message(role="user", content="hello"),),
        reward=1.0,
        termination="done",
    )
    path = tmp_path / "t.json"
    write_document(path, trajectory)
    good = path.read_text()
    for bad in ("NaN", "1.5", '"1.0"', "true"):
        path.write_text(good.replace('"reward": 1.0', f'"reward": {bad}'))
        message = refusal(path, Trajectory)
        assert "reward" in message
    assert "exactly one of reward" in refusal_of_replaced(path, good, '"reward": 1.0', '"reward": null')


def refusal_of_replaced(path, good: str, old: str, new: str) -> str:
    path.write_text(good.replace(old, new))
    return refusal(path, Trajectory)


def test_reading_is_lazy_and_quiet_about_whole_files(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    append(tmp_path / "log.jsonl", [FIRST] * 3)
    assert next(read_records(tmp_path / "log.jsonl", Candidates)) == FIRST
    assert not caplog.records


def test_files_can_be_read_by_others(tmp_path):
    old = os.umask(0o022)
    try:
        write_document(tmp_path / "document.json", FIRST)
        append(tmp_path / "log.jsonl", [FIRST])
    finally:
        os.umask(old)
    assert (tmp_path / "document.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o644
