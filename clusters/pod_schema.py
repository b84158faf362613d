"""A pod as far as it is rendered (``v1``): a strict schema, in which an unknown or misspelt field is refused."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, PositiveInt, model_validator
from pydantic.alias_generators import to_camel

from trace_jax.contract.record import Part

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
Key = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$")] | PositiveInt


class Object(Part):
    """Fields are written in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class Metadata(Object):
    """Name, labels and annotations."""

    name: Name | None = None
    namespace: Name | None = None
    labels: dict[Key, LabelValue] = {}
    annotations: dict[Key, str] = {}


class SecretKeyRef(Object):
    """A key of a Secret: where a value lies, never the value."""

    name: Name
    key: str


class ValueFrom(Object):
    """The one source in use."""

    secret_key_ref: SecretKeyRef


class EnvironmentVariable(Object):
    """A value in the open, or a reference."""

    name: Variable
    value: str | None = None
    value_from: ValueFrom | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.value is None) == (self.value_from is None):
            raise ValueError(f"{self.name}: exactly one of value and valueFrom")
        return self


class ContainerPort(Object):
    """A port that the container listens on."""

    container_port: Port
    name: Name | None = None


class HttpGet(Object):
    """An HTTP probe."""

    path: Annotated[str, Field(pattern="^/")]
    port: Port


class Probe(Object):
    """When a container counts as started or ready."""

    http_get: HttpGet
    period_seconds: PositiveInt = 10
    timeout_seconds: PositiveInt = 1
    failure_threshold: PositiveInt = 3


class Resources(Object):
    """Limits are requests too for accelerators."""

    limits: dict[Key, Quantity] = {}
    requests: dict[Key, Quantity] = {}


class SecurityContext(Object):
    """TPU containers lock memory."""

    privileged: bool


class VolumeMount(Object):
    """Where a volume appears."""

    name: Name
    mount_path: Annotated[str, Field(pattern="^/")]
    read_only: bool = False


class Container(Object):
    """One program."""

    name: Name
    image: Annotated[str, Field(min_length=1)]
    command: Annotated[list[str], Field(min_length=1)]
    env: list[EnvironmentVariable] = []
    ports: list[ContainerPort] = []
    resources: Resources
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    volume_mounts: list[VolumeMount] = []


class Csi(Object):
    """A bucket through Cloud Storage FUSE."""

    driver: Literal["gcsfuse.csi.storage.gke.io"]
    read_only: bool
    volume_attributes: dict[str, str]


class EmptyDir(Object):
    """Shared memory."""

    medium: Literal["Memory"]


class Volume(Object):
    """One of the two kinds in use."""

    name: Name
    csi: Csi | None = None
    empty_dir: EmptyDir | None = None


class Toleration(Object):
    """A taint that does not keep the pod away."""

    key: Key
    operator: Literal["Equal", "Exists"]
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"]


class PodSpec(Object):
    """A pod; every volume that is mounted exists."""

    restart_policy: Literal["Never", "OnFailure"]
    termination_grace_period_seconds: PositiveInt
    service_account_name: Name
    node_selector: dict[Key, LabelValue] = {}
    tolerations: list[Toleration] = []
    host_network: bool = False
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet"] = "ClusterFirst"
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []

    @model_validator(mode="after")
    def _volumes(self) -> Self:
        mounted = {mount.name for container in self.containers for mount in container.volume_mounts}
        if mounted != {volume.name for volume in self.volumes}:
            raise ValueError(f"volumes that are mounted and volumes that exist differ: {sorted(mounted)}")
        if self.host_network and self.dns_policy != "ClusterFirstWithHostNet":
            raise ValueError("hostNetwork needs dnsPolicy ClusterFirstWithHostNet to resolve the set's host names")
        return self


class PodTemplate(Object):
    """What each pod is made from."""

    metadata: Metadata = Metadata()
    spec: PodSpec
