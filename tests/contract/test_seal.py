"""The seal of a record: what it covers, what it does not mind, and that records without one are read."""

import hashlib
import json

import pytest

from trace_jax.contract.capability import Candidate, Candidates
from trace_jax.contract.files import JsonLinesWriter, read_document, read_records, write_document
from trace_jax.contract.schemas import RECORDS
from trace_jax.errors import UserError

RECORD = Candidates(analyst="a", capabilities=(Candidate(name="look", description="Look."),))


def written(path) -> bytes:
    """The record at ``path``, a document or a log of one line."""
    if path.suffix == ".json":
        write_document(path, RECORD)
    else:
        with JsonLinesWriter(path) as writer:
            writer.append(RECORD)
    return path.read_bytes()


def read(path) -> Candidates:
    return read_document(path, Candidates) if path.suffix == ".json" else next(read_records(path, Candidates))


@pytest.mark.parametrize("name", ["one.json", "one.jsonl"])
def test_it_is_the_sha256_of_all_that_stands_before_its_comma(tmp_path, name):
    data = written(tmp_path / name)
    content = json.loads(data)
    assert (
        list(content)[-1] == "sha256"
        and content.pop("sha256")
        == hashlib.sha256(data[: data.rindex(b'"sha256"')].rstrip().removesuffix(b",")).hexdigest()
    )
    assert content == json.loads(RECORD.model_dump_json())
    assert read(tmp_path / name) == RECORD


@pytest.mark.parametrize("name", ["one.json", "one.jsonl"])
def test_no_byte_of_a_record_can_be_changed_unseen(tmp_path, name):
    path = tmp_path / name
    data = written(path)
    for at in range(len(data)):
        if data[at : at + 1].isspace():
            continue
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(UserError, match=str(path)):
            read(path)


def test_a_record_without_a_seal_is_another_program_s_and_one_in_the_middle_is_an_edit(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(RECORD.model_dump_json())
    assert read(path) == RECORD
    content = json.loads(written(path))
    path.write_text(json.dumps({"sha256": content.pop("sha256"), **content}))
    with pytest.raises(UserError, match="its seal, sha256, is not the last field: it was edited: restore it"):
        read(path)


def test_no_record_has_a_field_of_that_name():
    assert not any("sha256" in model.model_fields for model in RECORDS.values())
