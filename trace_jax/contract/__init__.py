"""The JSON contract: typed, versioned records that link the stages, and the files that hold them.

from trace_jax.contract import Trajectory, read_records

for trajectory in read_records("runs/quickstart/trajectories.jsonl", Trajectory):
    print(trajectory.id, trajectory.reward)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapter": ["AdapterManifest"],
        "capability": [
            "AnalysisReport",
            "Candidate",
            "Candidates",
            "CapabilityReport",
            "Interval",
            "Label",
            "LabelRun",
            "PairLabel",
            "RunStatistics",
            "SelectedCapability",
            "Status",
        ],
        "environment": ["Attempt", "Authorship", "Calibration", "Design", "DesignAttempt", "EnvironmentManifest"],
        "episodes": ["broken_by_server", "read_episodes"],
        "evaluation": ["Comparison", "Effort", "ErrorCounts", "EvaluationReport", "MethodResult"],
        "files": ["JsonLinesWriter", "read_document", "read_records", "write_document"],
        "llm": ["ModelCall", "PromptMessage"],
        "record": ["Part", "Record"],
        "routing": ["Route", "RouteDecision", "RouteTable"],
        "schemas": ["RECORDS", "schema"],
        "served": ["ServedAnswer", "ServedRequest"],
        "trajectory": ["Check", "Message", "Policy", "Segment", "Tool", "ToolCall", "Trajectory", "Usage"],
        "workdir": ["WorkDirectory", "open_workdir"],
    },
)
