"""The JSON Schema files of the contract, for programs in other languages: ``python -m trace_jax.contract.schemas``.

The files lie in ``schemas/`` beside this module; a test holds them against the models.
"""

import json
from pathlib import Path

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import AnalysisReport, Candidates, LabelRun, SelectedCapability
from trace_jax.contract.environment import DesignAttempt, EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.record import Record
from trace_jax.contract.routing import RouteDecision, RouteTable
from trace_jax.contract.seal import FIELD
from trace_jax.contract.served import ServedRequest
from trace_jax.contract.storage import replace_bytes
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import WorkDirectory

DIRECTORY = Path(__file__).parent / "schemas"

RECORDS: dict[str, type[Record]] = {
    "trajectory": Trajectory,
    "candidates": Candidates,
    "label_run": LabelRun,
    "analysis_report": AnalysisReport,
    "selected_capability": SelectedCapability,
    "environment_manifest": EnvironmentManifest,
    "design_attempt": DesignAttempt,
    "adapter_manifest": AdapterManifest,
    "route_table": RouteTable,
    "route_decision": RouteDecision,
    "served_request": ServedRequest,
    "evaluation_report": EvaluationReport,
    "model_call": ModelCall,
    "work_directory": WorkDirectory,
}

_SEAL = {
    "description": "The seal: the SHA-256 of all bytes before the comma in front of this field, which is the last.",
    "pattern": "^[0-9a-f]{64}$",
    "type": "string",
}


def schema(model: type[Record]) -> str:
    """The JSON Schema (draft 2020-12) of a record as it stands in a file, as text.

    ``schema_version`` is required there and has one legal value; the seal may be absent. Rules across several fields
    are not in the schema.
    """
    content = model.model_json_schema(mode="validation")
    content["properties"]["schema_version"] = {"const": model.version()}
    content["properties"][FIELD] = _SEAL
    content["required"] = ["schema_version", *content.get("required", [])]
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every schema file, and remove the files of records that no longer exist."""
    for stale in set(DIRECTORY.glob("*.json")) - {DIRECTORY / f"{name}.json" for name in RECORDS}:
        stale.unlink()
    for name, model in RECORDS.items():
        replace_bytes(DIRECTORY / f"{name}.json", schema(model).encode())


if __name__ == "__main__":
    main()
