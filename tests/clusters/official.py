"""Rendered documents, judged by the schemas that their readers publish.

Kubernetes: its OpenAPI schemas, from ``kubernetes-validate``; strict, so that an unknown field is refused. JobSet: the
types of its API, from ``kubeflow-trainer-api``. SkyPilot: its schema, from ``skypilot``. No package publishes what the
readers check beyond types (values of enumerations, names of roles, sizes that belong together): ``check_rules`` has
those rules that a training job depends on.
"""

import enum
import importlib
import sys
import types
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

Json = dict[str, Any]
KUBERNETES = "1.34"  # oldest one that GKE offers in its regular channel


def check_kubernetes(document: Json) -> None:
    """Raise a ValidationError unless Kubernetes, with JobSet, knows every field of ``document``."""
    if document["kind"] != "JobSet":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    assert document["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    roles = document["spec"]["replicatedJobs"]
    for role in roles:
        job = {"apiVersion": "batch/v1", "kind": "Job", **role["template"]}
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
    bare = {**document, "spec": {**document["spec"], "replicatedJobs": [{**role, "template": {}} for role in roles]}}
    JobsetV1alpha2JobSet.model_validate(bare, extra="forbid", by_alias=True, by_name=False)


def check_rules(jobset: Json) -> None:
    """Fail unless the parts of a JobSet fit together, as its webhooks and ours demand."""
    spec = jobset["spec"]
    names = [role["name"] for role in spec["replicatedJobs"]]
    assert len(set(names)) == len(names)
    policies = [*spec["failurePolicy"].get("rules", []), spec.get("successPolicy", {})]
    assert {name for policy in policies for name in policy.get("targetReplicatedJobs", [])} <= set(names)
    actions = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
    assert {rule["action"] for rule in spec["failurePolicy"].get("rules", [])} <= actions
    assert spec["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    for role in spec["replicatedJobs"]:
        job = role["template"]["spec"]
        pod = job["template"]["spec"]
        assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"] > 0
        assert len(f"{jobset['metadata']['name']}-{role['name']}-{role['replicas'] - 1}-{job['completions'] - 1}") <= 63
        assert "podFailurePolicy" not in job or pod["restartPolicy"] == "Never"
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        assert mounts == {volume["name"] for volume in pod.get("volumes", [])}
        assert not pod.get("hostNetwork") or pod["dnsPolicy"] == "ClusterFirstWithHostNet"
        for container in pod["containers"]:
            assert all(("value" in entry) != ("valueFrom" in entry) for entry in container.get("env", []))


def check_skypilot(task: Json) -> None:
    """Raise a ValidationError unless SkyPilot knows every field of ``task``; fail if a port or a secret is public."""
    schemas = _skypilot_schemas()
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    assert "ports" not in task["resources"], "SkyPilot opens ports to the Internet"
    assert not any(task.get("secrets", {}).values()), "a secret's value does not belong into a file"


@cache
def _skypilot_schemas() -> Any:
    """``sky.utils.schemas`` alone: all of SkyPilot would want 40 packages more, and other versions of ours."""

    class AutostopWaitFor(enum.Enum):
        @classmethod
        def supported_modes(cls) -> list[str]:
            return ["jobs_and_ssh", "jobs", "none"]

    found = find_spec("sky")
    assert found is not None and found.origin is not None, "make installs skypilot without its dependencies"
    stubs: dict[str, dict[str, Any]] = {
        "sky": {"__path__": [str(Path(found.origin).parent)], "__version__": "0", "__commit__": "0"},
        "sky.skylet.autostop_lib": {"AutostopWaitFor": AutostopWaitFor},
        "sky.server.daemons": {"INTERNAL_REQUEST_DAEMONS": []},
    }
    for name, attributes in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(attributes)
    return importlib.import_module("sky.utils.schemas")
