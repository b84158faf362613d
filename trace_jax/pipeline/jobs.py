"""Training jobs: an adapter for synthesised environments, and the baseline for the target itself."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.storage import PathLike
from trace_jax.environments.host import host_of
from trace_jax.environments.protocol import Target, Task
from trace_jax.pipeline.calibration import calibration_groups
from trace_jax.sandbox.designs import host_of_design
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.training.group_source import TrainingEnvironment
from trace_jax.training.job import Job

FIRST_TRAINING_SEED = 1_000_000  # calibration uses the seeds below


def adapter_job(
    manifests: Sequence[EnvironmentManifest],
    environments: Path,
    name: str,
    directory: PathLike,
    *,
    own: Design,
    sandbox: SandboxSettings,
    calibrated_here: bool = True,
) -> Job:
    """One adapter for one environment, or for the mixture of several; ``environments`` holds the manifests.

    ``own`` says how the target is built that the environments may name. Those that a model wrote run in ``sandbox``.

    An adapter that has learnt nothing is the base, so the base's calibration rollouts are its first batches, spent
    already. Where another base or temperature played them (``calibrated_here`` false), they are left out.
    """
    training = [
        TrainingEnvironment(
            m.name, host_of_design(m.design, own, sandbox), None, m.target, "train", FIRST_TRAINING_SEED
        )
        for m in manifests
    ]
    calibrations = [calibration_groups(manifest, environments) for manifest in manifests if calibrated_here]
    turns = itertools.zip_longest(*calibrations)
    groups = [group for turn in turns for group in turn if group is not None]
    return Job(
        name=name,
        directory=directory,
        environments=training,
        capabilities=tuple(manifest.capability for manifest in manifests),
        recorded=groups,
    )


def target_job(target: Target, target_name: str, tasks: tuple[Task, ...], name: str, directory: PathLike) -> Job:
    """One adapter for the target's own training ``tasks``."""
    training = TrainingEnvironment(target_name, host_of(target, "train"), tasks, target_name, "train")
    return Job(name=name, directory=directory, environments=[training], capabilities=())
