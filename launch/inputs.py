"""What the programs of single stages read of the stages before them."""

from pathlib import Path

from etils import epath

from trace_jax.analysis.importers.registry import read_with
from trace_jax.analysis.settings import SourceSettings
from trace_jax.analysis.stage import CANDIDATES, SELECTED, SOURCE, Source, check_labels, source_of
from trace_jax.contract.capability import Candidates, SelectedCapability
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.episodes import read_episodes
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.storage import is_local
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError


def local(workdir: epath.Path) -> Path:
    """The work directory as a local path. Raises UserError for an object store."""
    if not is_local(workdir):
        raise UserError(f"{workdir}: this program works on a local disk: choose a local --workdir and copy it later")
    return Path(workdir)


def read_selected(analysis: str) -> list[SelectedCapability]:
    """The capabilities that the analysis in a directory has selected. Raises UserError if there are none."""
    directory = epath.Path(analysis)
    check_labels(directory)
    selected = list(read_records(directory / SELECTED, SelectedCapability))
    if not selected:
        raise UserError(f"{directory / SELECTED}: nothing was selected: analyse more episodes, or with another analyst")
    return selected


def read_evidence(analysis: str, rollouts: str | None, source: SourceSettings) -> tuple[Trajectory, ...]:
    """The episodes that the analysis in a directory has read: in the JSON Lines ``rollouts``, or where ``source`` says.

    Empty if neither names a file. Raises UserError for other episodes than those that were analysed.
    """
    if rollouts is None and not source.path:
        return ()
    path = rollouts or source.path
    episodes = read_episodes(rollouts) if rollouts is not None else read_with(source)
    analysed = read_document(epath.Path(analysis) / SOURCE, Source)
    found = source_of(episodes)
    if found.content != analysed.content:
        raise UserError(
            f"{path}: {found.trajectories} episodes of content {found.content}, the analysis in {analysis} has read "
            f"{analysed.trajectories} of {analysed.content}: name the file that was analysed"
        )
    return episodes


def read_candidates(analysis: str) -> Candidates:
    """The dictionary of the analysis in a directory."""
    return read_document(epath.Path(analysis) / CANDIDATES, Candidates)


def manifest_paths(paths: list[str]) -> list[epath.Path]:
    """The environment manifests that ``paths`` name: files, or directories of them. Raises UserError for none."""
    found: list[epath.Path] = []
    for path in map(epath.Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        within = sorted(file for file in path.glob("*.json") if not file.name.endswith(".failed.json"))
        if not within:
            raise UserError(f"{path}: holds no environment manifest: name files NAME.json, or their directory")
        found += within
    return found


def read_manifests(paths: list[str]) -> dict[str, EnvironmentManifest]:
    """The manifests that ``paths`` name, by name. Raises UserError if two have one name."""
    manifests = [read_document(path, EnvironmentManifest) for path in manifest_paths(paths)]
    names = [manifest.name for manifest in manifests]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two environments are called {name}: leave one out")
    return dict(zip(names, manifests, strict=True))
