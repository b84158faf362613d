"""Stage 3 record: a trained LoRA adapter."""

import os
from collections.abc import Mapping
from typing import Self

from etils import epath
from pydantic import Field, model_validator

from trace_jax.contract.digest import Checksum, check_file, checksum
from trace_jax.contract.files import read_document
from trace_jax.contract.record import Record
from trace_jax.contract.storage import PathLike

MANIFEST = "adapter.json"

PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")  # what an adapter is made of, in its PEFT directory


class AdapterManifest(Record):
    """An adapter on disk. Paths are relative to the manifest's own directory, so that a work directory can be moved."""

    schema_version: int = 2  # 2: the checksums of its files
    name: str  # unique and immutable: engines load adapters under it
    capabilities: tuple[str, ...]  # what it was trained for; several for a mixture, none for the target itself
    environments: tuple[str, ...]  # environment manifests it was trained on
    base: str  # revision (content hash) of the base model
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    peft: str  # directory in PEFT format
    files: dict[str, Checksum]  # of that directory: the configuration and the weights, by file name
    checkpoint: str  # Orbax checkpoint directory
    steps: int
    rollouts: int
    seed: int
    metrics: dict[str, float] = Field(default_factory=dict)  # of the last step

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if tuple(sorted(self.files)) != PEFT_FILES:
            raise ValueError(f"files names {sorted(self.files)}; an adapter is {' and '.join(PEFT_FILES)}")
        return self


def peft_checksums(directory: PathLike) -> dict[str, Checksum]:
    """The checksums of the two files of an adapter, by name. Raises UserError where ``directory`` lacks one."""
    return {name: checksum(epath.Path(directory) / name) for name in PEFT_FILES}


def check_peft_files(directory: PathLike, files: Mapping[str, Checksum], named_by: PathLike) -> None:
    """Raise UserError unless ``directory`` holds ``files`` as the manifest ``named_by`` recorded them."""
    for name, expected in files.items():
        remedy = "the adapter was changed after its training, or swapped: restore the file, or train it again"
        check_file(epath.Path(directory) / name, expected.sha256, named_by, remedy)


def check_adapter(path: PathLike, manifest: AdapterManifest) -> epath.Path:
    """The PEFT directory of the ``manifest`` at ``path``. Raises UserError unless it holds what was trained."""
    directory = epath.Path(path).parent / manifest.peft
    check_peft_files(directory, manifest.files, path)
    return directory


def manifest_of(directory: PathLike) -> tuple[epath.Path, AdapterManifest] | None:
    """The manifest beside a PEFT directory that is the directory's own, if there is one; with its path."""
    peft = epath.Path(os.path.abspath(os.fspath(directory)))
    path = peft.parent / MANIFEST
    if not path.exists():
        return None
    manifest = read_document(path, AdapterManifest)
    return (path, manifest) if peft.parent / manifest.peft == peft else None
