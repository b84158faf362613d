"""The cluster that a configuration describes. Fields are typed; unknown ones are refused. For limits see ``check``."""

from typing import Annotated, Literal

from pydantic import Field

from clusters.accelerators import TPUS, Tpu
from trace_jax.contract.record import Part
from trace_jax.relay.files import KEY

Target = Literal["gke", "skypilot", "ssh"]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]  # Kubernetes has 32 bits for a number
Positive = Annotated[int, Field(gt=0, lt=1 << 31)]
# Part of a path, an image or a name. It has no character that a shell, YAML or Kubernetes would expand.
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/:@+=,-]*$")]
Flag = Annotated[str, Field(pattern=r"^[^\n]+$")]
Zone = Annotated[str, Field(pattern=r"^[a-z0-9-]*$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
Account = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$", max_length=253)]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]
Label = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=30)]  # XPK allows 40; Kubernetes 63


class Mesh(Part):
    """Devices along each axis."""

    data: Positive
    fsdp: Positive
    tensor: Positive
    expert: Positive

    @property
    def devices(self) -> int:
        """Devices of the whole mesh."""
        return self.data * self.fsdp * self.tensor * self.expert


class Trainer(Part):
    """The machines that train: TPU machines by ``topology`` and ``slices``, GPU machines by ``hosts``."""

    config: Plain
    flags: tuple[Flag, ...]
    accelerator: str
    topology: Plain
    slices: Positive
    hosts: Count
    chips_per_host: Positive
    spot: bool
    reservation: LabelValue
    mesh: Mesh

    @property
    def tpu(self) -> Tpu | None:
        """The TPU generation; None for GPUs."""
        return TPUS.get(self.accelerator)

    @property
    def hosts_per_slice(self) -> int:
        """Machines of one slice; all machines for GPUs."""
        return self.tpu.chips(self.topology) // self.chips_per_host if self.tpu else self.hosts

    @property
    def machines(self) -> int:
        """All machines; this is the number of JAX processes."""
        return self.hosts_per_slice * self.slices

    @property
    def devices(self) -> int:
        """All JAX devices."""
        return self.machines * self.chips_per_host * (self.tpu.chip.devices if self.tpu else 1)


class Rollout(Part):
    """The GPU machines that generate rollouts."""

    image: Plain
    accelerator: str
    machines: Positive
    gpus_per_machine: Positive
    tensor_parallel: Positive
    spot: bool
    max_lora_rank: Positive
    max_loras_per_batch: Positive
    flags: tuple[Flag, ...]

    @property
    def servers_per_machine(self) -> int:
        """SGLang servers of one machine."""
        return self.gpus_per_machine // self.tensor_parallel

    @property
    def servers(self) -> int:
        """All SGLang servers."""
        return self.machines * self.servers_per_machine


class Gke(Part):
    """The GKE cluster, and the namespace and service account in it."""

    cluster: Plain
    namespace: Namespace
    service_account: Account


class Ssh(Part):
    """Machines that are reached by SSH, each ``user@internal-address``."""

    trainer_hosts: tuple[Plain, ...]
    rollout_hosts: tuple[Plain, ...]


class Cluster(Part):
    """A whole cluster; ``configs/clusters/base.py`` documents the fields."""

    name: Label
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    project: Plain
    zone: Zone
    image: Plain
    model: Plain
    workdir: Plain
    environments: tuple[Plain, ...]
    secrets: tuple[str, ...]
    max_restarts: Count
    grace_seconds: Positive
    startup_seconds: Positive
    trainer: Trainer
    rollout: Rollout
    gke: Gke
    ssh: Ssh

    @property
    def secret_names(self) -> dict[str, str]:
        """Environment variable → name of the secret object."""
        return dict(secret.split("=", 1) for secret in self.secrets)

    @property
    def relay_secret_names(self) -> dict[str, str]:
        """The secrets that relays need too, which is the key that they share with the trainer."""
        return {variable: name for variable, name in self.secret_names.items() if variable == KEY}

    @property
    def model_bucket(self) -> str:
        """The bucket of the model; empty if the model is on the machines."""
        return self.model.removeprefix("gs://").split("/", 1)[0] if self.model.startswith("gs://") else ""

    @property
    def model_path(self) -> str:
        """The model's path on the machines: gs://BUCKET/PATH is mounted as /gcs/BUCKET/PATH."""
        return f"/gcs/{self.model.removeprefix('gs://')}" if self.model_bucket else self.model
