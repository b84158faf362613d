"""``python -m trace_jax.contract.validate`` tells valid files of every kind, and the first problem of any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from contract_records import STRATEGIES, append
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trace_jax.contract.capability import Candidate, Candidates
from trace_jax.contract.files import write_document
from trace_jax.contract.schemas import RECORDS
from trace_jax.contract.validate import main, validate
from trace_jax.errors import UserError

CANDIDATES = Candidates(analyst="a", capabilities=(Candidate(name="look_up", description="d"),))


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_kind_is_told_by_its_fields(name: str, data: st.DataObject, tmp_path: Path) -> None:
    record = data.draw(STRATEGIES[name])
    write_document(tmp_path / "document.json", record)
    assert validate(tmp_path / "document.json") == f"1 {name}"
    (tmp_path / "records.jsonl").unlink(missing_ok=True)
    append(tmp_path / "records.jsonl", [record, record])
    assert validate(tmp_path / "records.jsonl") == f"2 {name}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no field of any record"),
        ('{"colour": 1}', r"has no field of any record \(it has colour\)"),
        ('{"schema_version": 1}', "has no field of any record"),
        ('{"analyst": "a", "capabilities": []}', "Candidates without schema_version"),
        ('{"schema_version": 9, "analyst": "a", "capabilities": []}', "schema_version 9; this build reads 3"),
        (
            '{"schema_version": 3, "analyst": 7, "capabilities": []}',
            r"analyst: .* valid string \(got 7\)",
        ),
        ('{"schema_version": 3, "analyst": "a", "capabilities": [], "x": 1}', "x: Extra inputs are not permitted"),
    ],
)
def test_the_first_problem_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "document.json").write_text(content)
    with pytest.raises(UserError, match=f"document.json: .*{words}"):
        validate(tmp_path / "document.json")
    if content:
        append(tmp_path / "log.jsonl", [CANDIDATES])
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write(content + "\n")
        with pytest.raises(UserError, match=f"log.jsonl:2: .*{words}"):
            validate(tmp_path / "log.jsonl")


def test_a_log_of_two_kinds_and_an_empty_log_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no whole record"):
        validate(tmp_path / "empty.jsonl")
    decision = {"schema_version": 1, "conversation": "c", "router": "gate", "weights": {}, "adapters": {}}
    append(tmp_path / "both.jsonl", [CANDIDATES])
    with (tmp_path / "both.jsonl").open("a") as file:
        file.write(json.dumps(decision) + "\n")
    with pytest.raises(UserError, match="holds both candidates and route_decision"):
        validate(tmp_path / "both.jsonl")


def test_the_command_says_valid_or_the_first_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "candidates.json"
    write_document(path, CANDIDATES)
    done = subprocess.run(
        [sys.executable, "-m", "trace_jax.contract.validate", str(path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: valid: 1 candidates\n", "")
    assert main([str(tmp_path / "nowhere.json")]) == 1 and main([]) == 2 and main(["a", "b"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: ") and "nowhere.json: no such file" in told[0]
    assert told[1:] == ["usage: python -m trace_jax.contract.validate PATH"] * 2
