"""What is written is read back equal, for every record, on a local disk and in an object store."""

import tempfile

import pytest
from contract_records import STRATEGIES, append
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_jax.contract.capability import Candidate, Candidates
from trace_jax.contract.files import read_document, read_records, write_document
from trace_jax.contract.schemas import RECORDS
from trace_jax.contract.trajectory import Message, Policy, ToolCall, Trajectory
from trace_jax.errors import UserError


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=12)
@given(data=st.data())
def test_every_record_is_read_back_equal(name, data):
    record = data.draw(STRATEGIES[name])
    with tempfile.TemporaryDirectory() as directory:
        write_document(f"{directory}/document.json", record)
        assert read_document(f"{directory}/document.json", RECORDS[name]) == record
        others = data.draw(st.lists(STRATEGIES[name], max_size=2))
        append(f"{directory}/records.jsonl", [record])
        append(f"{directory}/records.jsonl", others)
        assert list(read_records(f"{directory}/records.jsonl", RECORDS[name])) == [record, *others]


def test_object_store_holds_numbered_shards(store):
    first, second = (Candidates(analyst=f"a{i}", capabilities=()) for i in range(2))
    write_document(f"{store}/run/document.json", first)
    write_document(f"{store}/run/document.json", second)
    assert read_document(f"{store}/run/document.json", Candidates) == second
    append(f"{store}/run/log.jsonl", [first, second])
    before = {path.name: path.read_bytes() for path in (store / "run" / "log.jsonl").iterdir()}
    append(f"{store}/run/log.jsonl", [second])
    append(f"{store}/run/log.jsonl", [])
    after = {path.name: path.read_bytes() for path in (store / "run" / "log.jsonl").iterdir()}
    assert sorted(after) == ["00000000.jsonl", "00000001.jsonl"]
    assert before.items() <= after.items()
    assert list(read_records(f"{store}/run/log.jsonl", Candidates)) == [first, second, second]


def trajectory_with(arguments) -> Trajectory:
    call = ToolCall(id="c", name="f", arguments=arguments)
    return Trajectory(
        id="t",
        target="helpdesk",
        task="1",
        split="train",
        seed=0,
        trial=0,
        policy=Policy(base="b"),
        messages=(Message(role="assistant", tool_calls=(call,)),),
        reward=1.0,
        termination="done",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), (1, 2), {1: "a"}, "\ud800", object()])
def test_what_json_would_change_is_refused_and_nothing_is_written(value, tmp_path):
    good = trajectory_with({})
    append(tmp_path / "log.jsonl", [good])
    bad = trajectory_with({"x": value})
    with pytest.raises(UserError, match="log.jsonl: Trajectory") as error:
        append(tmp_path / "log.jsonl", [good, bad])
    assert "\n" not in str(error.value)
    assert list(read_records(tmp_path / "log.jsonl", Trajectory)) == [good]
    with pytest.raises(UserError, match="document.json: Trajectory"):
        write_document(tmp_path / "document.json", bad)
    assert not (tmp_path / "document.json").exists()


def test_documents_are_utf8_for_people_to_read(tmp_path):
    write_document(
        tmp_path / "c.json", Candidates(analyst="é", capabilities=(Candidate(name="look_up", description="Ω🙂"),))
    )
    assert "Ω🙂" in (tmp_path / "c.json").read_text(encoding="utf-8")
