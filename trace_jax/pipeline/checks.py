"""What a pipeline must be sure of: its settings and work directory when it starts, its adapters when they are used."""

from pathlib import Path

from etils import epath

from trace_jax.contract.adapter import MANIFEST, AdapterManifest, check_adapter
from trace_jax.contract.files import read_document
from trace_jax.contract.storage import is_local
from trace_jax.contract.workdir import open_workdir
from trace_jax.errors import UserError
from trace_jax.routing.load import ROUTERS
from trace_jax.run_settings import RunSettings
from trace_jax.session import Base
from trace_jax.training.settings import check_sampling


def check_settings(settings: RunSettings) -> None:
    """Raises UserError for settings that are valid alone, but not for a pipeline."""
    training = settings.training
    if training.max_steps is None:
        raise UserError("training.max_steps is not set: say how many steps an adapter is trained for")
    if training.max_rollouts is not None:
        raise UserError(
            f"training.max_rollouts is {training.max_rollouts}: the pipeline sets it for GRPO on the target, to what "
            "TRACE has spent; bound the adapters by training.max_steps"
        )
    check_sampling(settings.rollout)
    ROUTERS.find(settings.routing.router)


def trained_adapter(directory: Path, name: str) -> AdapterManifest:
    """The manifest of a trained adapter. Raises UserError if its files are not those of its training."""
    manifest = read_document(directory / MANIFEST, AdapterManifest)
    if manifest.name != name:
        raise UserError(f"{directory / MANIFEST}: manifest of adapter {manifest.name!r}, not {name!r}: restore it")
    check_adapter(directory / MANIFEST, manifest)
    return manifest


def open_run(workdir: epath.Path, settings: RunSettings, base: Base) -> Path:
    """The work directory of a run with ``settings`` on ``base``: made new, or opened again if it is this run's."""
    if not is_local(workdir):
        raise UserError(f"{workdir}: the pipeline works on a local disk: choose a local --workdir and copy it later")
    return Path(open_workdir(workdir, {**settings.identity(), "base_revision": base.revision}))
