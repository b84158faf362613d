"""Whatever is rendered, its readers know every field of it: Kubernetes, JobSet and SkyPilot by their own schemas."""

import copy
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml
from official import check_kubernetes, check_rules, check_skypilot

from clusters.gke import render_gke
from clusters.skypilot import render_skypilot

TPU, GPU = "qwen3_30b_v6e64", "qwen3_8b_h100"
ON_GKE = {"targets": ("gke",), "zone": "us-central1-a", "gke.cluster": "c", "gke.service_account": "s"}
LOCAL_MODEL = {"model": "/models/qwen", "secrets": ()}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (TPU, {}),
        (TPU, {"name": "a" * 30}),
        (TPU, {"trainer.spot": False, "trainer.reservation": "r1"}),
        (TPU, {"trainer.slices": 2, "trainer.mesh.data": 32}),
        (TPU, {"rollout.spot": True, **LOCAL_MODEL}),
        ("qwen3_30b_v5p64", {}),
        ("qwen3_30b_v5p128", {}),
        (GPU, ON_GKE),
        (GPU, {**ON_GKE, "trainer.hosts": 2, "trainer.mesh.data": 16, "gke.namespace": "trace"}),
    ],
)
def test_kubernetes_knows_every_field(cluster, name: str, changes: dict[str, Any]) -> None:
    for file, content in render_gke(cluster(name, **changes)).files.items():
        if file.endswith(".yaml"):
            for document in yaml.safe_load_all(content):
                check_kubernetes(document)
                if document["kind"] == "JobSet":
                    check_rules(document)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (GPU, {}),
        (GPU, {"zone": "us-central1-a", **LOCAL_MODEL}),
        (TPU, {"targets": ("skypilot",)}),
        ("qwen3_30b_v5p64", {"targets": ("skypilot",), "trainer.spot": False}),
    ],
)
def test_skypilot_knows_every_field(cluster, name: str, changes: dict[str, Any]) -> None:
    for content in render_skypilot(cluster(name, **changes)).files.values():
        check_skypilot(yaml.safe_load(content))


def set_at(document: Any, path: tuple[str | int, ...], value: object) -> None:
    *parents, last = path
    for key in parents:
        document = document[key]
    document[last] = value


TRAINER = ("spec", "replicatedJobs", 0)
JOB = (*TRAINER, "template", "spec")
POD = (*JOB, "template", "spec")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("spec", "maxRestart"), 3, "maxRestart"),
        (("spec", "failurePolicy", "maxRestarts"), "3", "maxRestarts"),
        (("spec", "failurePolicy", "rules", 0, "onJobFailureReason"), [], "onJobFailureReason"),
        ((*TRAINER, "count"), 2, "count"),
        ((*JOB, "parallelism"), "15", "'15'"),
        ((*JOB, "completionmode"), "Indexed", "completionmode"),
        ((*POD, "restart_policy"), "Always", "restart_policy"),
        ((*POD, "volumes"), [{"name": "shm", "emptydir": {}}], "emptydir"),
        ((*POD, "containers", 0, "env", 2, "valuefrom"), {}, "valuefrom"),
        ((*POD, "containers", 0, "ports", 0), {"name": "x"}, "containerPort"),
    ],
)
def test_a_slip_in_a_jobset_is_found(cluster, path: tuple[str | int, ...], value: object, words: str) -> None:
    jobset = list(yaml.safe_load_all(render_gke(cluster(TPU)).files["jobset.yaml"]))[1]
    broken = copy.deepcopy(jobset)
    set_at(broken, path, value)
    with pytest.raises((jsonschema.ValidationError, pydantic.ValidationError), match=words):
        check_kubernetes(broken)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*JOB, "parallelism"), 15),
        ((*JOB, "completionMode"), "NonIndexed"),
        ((*POD, "restartPolicy"), "OnFailure"),
        ((*POD, "hostNetwork"), True),
        ((*POD, "volumes"), []),
        ((*POD, "containers", 0, "env", 2, "value"), "s3cret"),
        (("metadata", "name"), "x" * 60),
        (("spec", "successPolicy", "targetReplicatedJobs"), ["trainers"]),
        (("spec", "failurePolicy", "rules", 0, "action"), "Retry"),
    ],
)
def test_parts_of_a_jobset_that_do_not_fit_are_found(cluster, path: tuple[str | int, ...], value: object) -> None:
    jobset = list(yaml.safe_load_all(render_gke(cluster(TPU)).files["jobset.yaml"]))[1]
    check_rules(jobset)
    set_at(jobset, path, value)
    with pytest.raises((AssertionError, KeyError)):
        check_rules(jobset)


@pytest.mark.parametrize(
    "change",
    [
        lambda task: task["resources"].update(ports=30000),
        lambda task: task.update(num_node=2),
        lambda task: task.update(num_nodes="2"),
        lambda task: task["resources"].update(disksize=5),
        lambda task: task["secrets"].update(HF_TOKEN="value"),
        lambda task: task["resources"]["job_recovery"].update(max_restarts_on_errors="1"),
    ],
)
def test_a_slip_in_a_skypilot_task_is_found(cluster, change) -> None:
    task = yaml.safe_load(render_skypilot(cluster(GPU)).files["task.yaml"])
    check_skypilot(task)
    change(task)
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        check_skypilot(task)
