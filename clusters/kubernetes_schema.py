"""The Kubernetes objects that are rendered, as a strict schema: an unknown or misspelt field is refused.

Only the fields in use, with the constraints that the API server would check (JobSet ``jobset.x-k8s.io/v1alpha2``, Job
``batch/v1``, Service ``v1``) and those that a training job needs on top: all pods of a Job at once, numbered.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from clusters.pod_schema import Key, LabelValue, Metadata, Name, Object, PodTemplate, Port


class PodCondition(Object):
    """DisruptionTarget: preempted, evicted or drained."""

    type: Literal["DisruptionTarget"]
    status: Literal["True"] = "True"


class PodFailureRule(Object):
    """What a failed pod does to its Job."""

    action: Literal["FailJob", "Ignore", "Count"]
    on_pod_conditions: Annotated[list[PodCondition], Field(min_length=1)]


class PodFailurePolicy(Object):
    """The rules, in order."""

    rules: Annotated[list[PodFailureRule], Field(min_length=1)]


class JobSpec(Object):
    """All pods at once, each with its index."""

    parallelism: PositiveInt
    completions: PositiveInt
    completion_mode: Literal["Indexed"]
    backoff_limit: NonNegativeInt
    pod_failure_policy: PodFailurePolicy | None = None
    template: PodTemplate

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.parallelism != self.completions:
            raise ValueError(f"parallelism {self.parallelism} ≠ completions {self.completions}: hosts run together")
        if self.pod_failure_policy and self.template.spec.restart_policy != "Never":
            raise ValueError("podFailurePolicy needs restartPolicy Never")
        return self


class JobTemplate(Object):
    """What each Job is made from."""

    metadata: Metadata = Metadata()
    spec: JobSpec


class ReplicatedJob(Object):
    """``replicas`` equal Jobs."""

    name: Name
    replicas: PositiveInt
    template: JobTemplate


class Network(Object):
    """Host names ``SET-ROLE-JOB-POD.SET``."""

    enable_dns_hostnames: Annotated[Literal[True], Field(alias="enableDNSHostnames")]
    publish_not_ready_addresses: bool


class SuccessPolicy(Object):
    """When the set is done."""

    operator: Literal["All", "Any"]
    target_replicated_jobs: list[Name]


class FailureRule(Object):
    """What a failed Job does to the set."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    on_job_failure_reasons: list[Literal["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"]] = []
    target_replicated_jobs: list[Name] = []


class FailurePolicy(Object):
    """Restarts; without a matching rule a failed Job restarts the set and is counted."""

    max_restarts: NonNegativeInt
    rules: list[FailureRule] = []


class JobSetSpec(Object):
    """The set; policies name roles that exist."""

    network: Network
    success_policy: SuccessPolicy | None = None
    failure_policy: FailurePolicy
    replicated_jobs: Annotated[list[ReplicatedJob], Field(min_length=1)]

    @model_validator(mode="after")
    def _roles(self) -> Self:
        names = [job.name for job in self.replicated_jobs]
        targets = {name for rule in self.failure_policy.rules for name in rule.target_replicated_jobs}
        targets |= set(self.success_policy.target_replicated_jobs if self.success_policy else ())
        if len(set(names)) != len(names) or not targets <= set(names):
            raise ValueError(f"roles {names} must be distinct, and policies may name no others: {sorted(targets)}")
        return self


class JobSet(Object):
    """A set of Jobs that start, fail and end together."""

    api_version: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: Metadata
    spec: JobSetSpec

    @model_validator(mode="after")
    def _host_names(self) -> Self:
        for job in self.spec.replicated_jobs:
            name = f"{self.metadata.name}-{job.name}-{job.replicas - 1}-{job.template.spec.completions - 1}"
            if len(name) > 63:
                raise ValueError(f"host name {name} has over 63 characters: shorten the set's name")
        return self


class ServicePort(Object):
    """A port inside the cluster."""

    name: Name
    port: Port
    target_port: Port


class ServiceSpec(Object):
    """ClusterIP only: what is served has no password and stays inside."""

    type: Literal["ClusterIP"]
    selector: dict[Key, LabelValue]
    ports: Annotated[list[ServicePort], Field(min_length=1)]


class Service(Object):
    """A stable name for the router."""

    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec
