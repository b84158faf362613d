"""Finds what a training left behind: manifests of adapters, Orbax steps and PEFT directories. It needs no JAX.

A directory stands for every checkpoint below it. Only whole checkpoints are found, so a training may still be running.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from etils import epath

from trace_jax.contract.adapter import MANIFEST, PEFT_FILES, AdapterManifest, manifest_of, peft_checksums
from trace_jax.contract.digest import checksum, digest_of
from trace_jax.contract.files import read_document
from trace_jax.errors import UserError

Kind = Literal["manifest", "orbax", "peft"]
ORBAX = "_CHECKPOINT_METADATA"  # the file by which Orbax marks a checkpoint
_COMMITTED = "commit_success.txt"  # Orbax writes it when all else is written
_SKIPPED = ("published",)  # adapters on their way to servers
_STEP = re.compile(r"\d+")


@dataclass(frozen=True)
class Checkpoint:
    """A state of an adapter's training on disk.

    ``name`` is the manifest's; of an Orbax step ``DIRECTORY@STEP``, by the training's directory; else a directory's.
    """

    name: str
    adapter: str  # the adapter that this is a state of
    step: int | None  # None: nothing tells it
    kind: Kind
    path: epath.Path  # of the manifest, of the directory of the step, or of the PEFT directory
    training: epath.Path  # the directory that the training wrote to

    def content(self) -> str:
        """16 hex digits of the SHA-256 of what is scored. It does not depend on where the files are."""
        if self.kind == "manifest":
            files = read_document(self.path, AdapterManifest).files
        elif self.kind == "peft":
            files = peft_checksums(self.path)
        else:
            files = {file.relative_to(self.path).as_posix(): checksum(file) for file in _files(self.path)}
        return digest_of({name: file.sha256 for name, file in files.items()})[:16]


def find_checkpoints(path: epath.Path) -> list[Checkpoint]:
    """The checkpoints at or below ``path``, by adapter, those of one training in the order of their steps.

    ``path`` is a manifest, an Orbax step, a PEFT directory, or a directory above some of them. A step of which there
    are both a manifest and an Orbax checkpoint is found once, by its manifest.

    Raises UserError if there is none, or if a manifest is damaged.
    """
    found = [read_checkpoint(kind, place) for kind, place in checkpoint_paths(path)]
    if not found:
        raise UserError(
            f"{path}: holds no adapter.json, Orbax step or PEFT directory: name the directory of a training"
        )
    return distinct(found)


def distinct(found: list[Checkpoint]) -> list[Checkpoint]:
    """``found`` in order, each step of a training once: by its manifest, if it has one."""
    by_step: dict[tuple[epath.Path, int | str], Checkpoint] = {}
    for checkpoint in sorted(found, key=lambda c: c.kind != "manifest"):
        step = checkpoint.name if checkpoint.step is None else checkpoint.step
        by_step.setdefault((checkpoint.training, step), checkpoint)
    return sorted(by_step.values(), key=lambda c: (c.adapter, str(c.training), c.step is None, c.step or 0, c.name))


def checkpoint_paths(path: epath.Path) -> Iterator[tuple[Kind, epath.Path]]:
    """Kind and path of each whole checkpoint at or below ``path``."""
    if path.name == MANIFEST:
        yield "manifest", path
    elif not path.is_dir():
        raise UserError(f"{path}: no such directory: name the directory of a training, or an adapter.json")
    elif _is_step(path):
        if _is_whole(path):
            yield "orbax", path
    elif all((path / name).exists() for name in PEFT_FILES):
        own = manifest_of(path)
        yield ("peft", path) if own is None else ("manifest", own[0])
    else:
        yield from _below(path)


def _below(path: epath.Path) -> Iterator[tuple[Kind, epath.Path]]:
    if (path / MANIFEST).exists():
        yield "manifest", path / MANIFEST
    for child in _listed(path):
        # A directory with a manifest is an export: its PEFT directory is the manifest's.
        if child.name.startswith(".") or child.name in _SKIPPED or not child.is_dir():
            continue
        if not ((path / MANIFEST).exists() and (child / PEFT_FILES[0]).exists()):
            yield from checkpoint_paths(child)


def read_checkpoint(kind: Kind, path: epath.Path) -> Checkpoint:
    """The checkpoint at ``path``. Raises UserError for a manifest that is damaged."""
    if kind == "manifest":
        manifest = read_document(path, AdapterManifest)
        label, above = path.parent.name, path.parent.parent
        if above.name == "snapshots" and manifest.name.endswith(f"-{label}"):
            adapter, training = manifest.name.removesuffix(f"-{label}"), above.parent
        else:
            adapter, training = manifest.name, path.parent
        return Checkpoint(manifest.name, adapter, manifest.steps, kind, path, training)
    if kind == "peft":
        name = path.parent.name if path.name == "peft" else path.name
        return Checkpoint(name, name, None, kind, path, path.parent if path.name == "peft" else path)
    training, step = path.parent.parent if path.parent.name == "checkpoints" else path.parent, int(path.name)
    manifest_path = training / MANIFEST
    adapter = read_document(manifest_path, AdapterManifest).name if manifest_path.exists() else training.name
    return Checkpoint(f"{training.name}@{step}", adapter, step, kind, path, training)  # no name that the end changes


def _is_step(path: epath.Path) -> bool:
    """Whether Orbax made ``path``, or is making it: its temporary directories begin with the step too."""
    return (path / ORBAX).exists() or "orbax-checkpoint-tmp" in path.name


def _is_whole(path: epath.Path) -> bool:
    """Whether the Orbax checkpoint at ``path`` is written to its end.

    On a disk its directory gets its name at the end; in an object store the file ``commit_success.txt`` comes last.
    """
    if not (_STEP.fullmatch(path.name) and (path / _COMMITTED).exists()):
        return False
    try:
        return json.loads((path / ORBAX).read_text()).get("commit_timestamp_nsecs") is not None
    except (ValueError, OSError):
        return False


def _listed(directory: epath.Path) -> list[epath.Path]:
    """What is in ``directory``; nothing if it was removed meanwhile."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    """The files of an Orbax checkpoint, but for those that say where it is."""
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        elif entry.name != _COMMITTED:
            yield entry
