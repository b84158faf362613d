"""The cluster that a configuration describes, typed and closed to unknown fields. ``check`` says if it can exist."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from clusters.accelerators import TPUS, Tpu
from trace_jax.contract.record import Part
from trace_jax.relay.files import KEY

Target = Literal["gke", "skypilot", "ssh"]
Count = Annotated[int, Field(ge=0)]
# What goes into a path, an image or a name: nothing that a shell, YAML or Kubernetes would expand.
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/:@+=,-]*$")]
Flag = Annotated[str, Field(pattern=r"^[^\n]+$")]
Label = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=30)]  # XPK allows 40; Kubernetes 63


class Mesh(Part):
    """Devices along each axis."""

    data: PositiveInt
    fsdp: PositiveInt
    tensor: PositiveInt
    expert: PositiveInt

    @property
    def devices(self) -> int:
        """Devices of the whole mesh."""
        return self.data * self.fsdp * self.tensor * self.expert


class Trainer(Part):
    """The machines that train: ``topology`` and ``slices`` say how many for TPUs, ``hosts`` for GPUs."""

    config: Plain
    flags: tuple[Flag, ...]
    accelerator: str
    topology: Plain
    slices: PositiveInt
    hosts: Count
    chips_per_host: PositiveInt
    spot: bool
    reservation: Plain
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
        """Machines in all: the number of JAX processes."""
        return self.hosts_per_slice * self.slices

    @property
    def devices(self) -> int:
        """JAX devices in all."""
        return self.machines * self.chips_per_host * (self.tpu.chip.devices if self.tpu else 1)


class Rollout(Part):
    """The GPU machines that generate."""

    image: Plain
    accelerator: str
    machines: PositiveInt
    gpus_per_machine: PositiveInt
    tensor_parallel: PositiveInt
    spot: bool
    max_lora_rank: PositiveInt
    max_loras_per_batch: PositiveInt
    flags: tuple[Flag, ...]

    @property
    def servers_per_machine(self) -> int:
        """SGLang servers of one machine."""
        return self.gpus_per_machine // self.tensor_parallel

    @property
    def servers(self) -> int:
        """SGLang servers in all."""
        return self.machines * self.servers_per_machine


class Gke(Part):
    """Where in Kubernetes."""

    cluster: Plain
    namespace: Plain
    service_account: Plain


class Ssh(Part):
    """Machines that are reached by SSH, each ``user@internal-address``."""

    trainer_hosts: tuple[Plain, ...]
    rollout_hosts: tuple[Plain, ...]


class Cluster(Part):
    """All of it; ``configs/clusters/base.py`` documents the fields."""

    name: Label
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    project: Plain
    zone: Plain
    image: Plain
    model: Plain
    workdir: Plain
    environments: tuple[Plain, ...]
    secrets: tuple[str, ...]
    max_restarts: Count
    grace_seconds: PositiveInt
    startup_seconds: PositiveInt
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
        """The same of what the relays beside the servers need too: the key that they share with the trainer."""
        return {variable: name for variable, name in self.secret_names.items() if variable == KEY}

    @property
    def model_bucket(self) -> str:
        """Bucket of the model; empty if it lies on the machines."""
        return self.model.removeprefix("gs://").split("/", 1)[0] if self.model.startswith("gs://") else ""

    @property
    def model_path(self) -> str:
        """Where programs find the model: gs://BUCKET/PATH appears as /gcs/BUCKET/PATH."""
        return f"/gcs/{self.model.removeprefix('gs://')}" if self.model_bucket else self.model
