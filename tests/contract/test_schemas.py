"""The schema files are those of the models, and mean the same to a validator that does not know Python's models."""

import json

import pytest
from contract_records import STRATEGIES
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from trace_jax.contract import adapter, capability, environment, evaluation, llm, routing, served, trajectory, workdir
from trace_jax.contract.record import Record
from trace_jax.contract.schemas import DIRECTORY, RECORDS, schema


def test_files_are_those_of_the_models():
    written = {path.stem: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")}
    assert written == {name: schema(model) for name, model in RECORDS.items()}, (
        "run: python -m trace_jax.contract.schemas"
    )


def test_every_record_of_the_contract_has_a_schema():
    modules = (adapter, capability, environment, evaluation, llm, routing, served, trajectory, workdir)
    defined = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__
    }
    assert defined == set(RECORDS.values())


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=10)
@given(data=st.data())
def test_what_is_written_satisfies_the_file(name, data):
    validator = Draft202012Validator(json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8")))
    content = json.loads(data.draw(STRATEGIES[name]).model_dump_json())
    validator.validate(content)
    assert not validator.is_valid({**content, "schema_version": content["schema_version"] + 1})
    assert not validator.is_valid({**content, "unknown_field": 1})
    validator.validate({**content, "sha256": "0" * 64})
    assert not validator.is_valid({key: value for key, value in content.items() if key != "schema_version"})
