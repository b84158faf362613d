"""A SkyPilot task as far as it is rendered: a strict schema of documented fields.

``resources.ports`` is not among them on purpose: SkyPilot opens such ports to the Internet.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from trace_jax.contract.record import Part

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class JobRecovery(Part):
    """What a managed job does after a preemption, and how often it may crash."""

    strategy: Literal["EAGER_NEXT_REGION", "FAILOVER"]
    max_restarts_on_errors: NonNegativeInt


class AcceleratorArgs(Part):
    """TPU VM software."""

    runtime_version: str


class Resources(Part):
    """One node."""

    infra: Annotated[str, Field(pattern=r"^gcp(/[a-z0-9-]+/[a-z0-9-]+)?$")]
    accelerators: Annotated[str, Field(pattern=r"^(tpu-[a-z0-9]+-[0-9]+|[A-Z0-9a-z-]+:[0-9]+)$")]
    accelerator_args: AcceleratorArgs | None = None
    use_spot: bool
    disk_size: PositiveInt
    job_recovery: JobRecovery | None = None


class SkyTask(Part):
    """One task. A null variable must be given on the command line."""

    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    num_nodes: PositiveInt
    resources: Resources
    envs: dict[Variable, str | None] = {}
    secrets: dict[Variable, None] = {}
    file_mounts: dict[str, Annotated[str, Field(pattern="^gs://")]] = {}
    run: Annotated[str, Field(min_length=1)]
