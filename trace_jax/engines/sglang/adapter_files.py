"""Adapters on disk, as SGLang servers get them: checked, uniquely named, and amplified for a test."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.json_files import read_json
from trace_jax.models.formats.peft import load_peft
from trace_jax.models.formats.peft_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS, refuse_unservable
from trace_jax.models.lora import LoRA

AMPLIFIED = 4.0  # the effect of an ``amplified`` adapter; activations are of the order of 1


@dataclass(frozen=True)
class AdapterFiles:
    """A PEFT directory that a server can load.

    ``name`` ends with a hash of the files, so that no two adapters ever have the same name.
    ``effect`` is the root mean square that the adapter adds to a module's output for inputs of size 1, of the module
    where it is largest. It is 0 for an adapter that computes what the base computes.
    """

    name: str
    path: Path
    bytes: int
    rank: int
    targets: tuple[str, ...]
    effect: float


def adapter_files(name: str, directory: Path, config: DecoderConfig) -> AdapterFiles:
    """Read and check an adapter of the base described by ``config``.

    Raises UserError for an adapter that is not plain LoRA, that does not fit the base, that would crash a server, or
    that a server would compute differently than we do.
    """
    path = directory.resolve()  # servers have another working directory
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        lora = load_peft(path, config)
    data = read_json(path / ADAPTER_CONFIG)
    refuse_unservable(path, data, lora.targets)
    contents = [(path / ADAPTER_CONFIG).read_bytes(), (path / ADAPTER_WEIGHTS).read_bytes()]
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:8]
    size = sum(map(len, contents))
    return AdapterFiles(f"{name}-{digest}", path, size, lora.rank, lora.targets, _effect(lora))


@contextmanager
def amplified(files: AdapterFiles) -> Iterator[AdapterFiles]:
    """A copy with an alpha so large that its effect cannot be missed; it exists while the block runs."""
    data = read_json(files.path / ADAPTER_CONFIG)
    data["lora_alpha"] = float(data["lora_alpha"]) * AMPLIFIED / files.effect
    directory = Path(tempfile.mkdtemp(dir=files.path.parent, prefix=f".{files.name}-"))
    try:
        os.chmod(directory, 0o755)  # the server may run as another user
        shutil.copyfile(files.path / ADAPTER_WEIGHTS, directory / ADAPTER_WEIGHTS)
        (directory / ADAPTER_CONFIG).write_text(json.dumps(data))
        yield AdapterFiles(directory.name[1:], directory, files.bytes, files.rank, files.targets, AMPLIFIED)
    finally:
        shutil.rmtree(directory)


def _effect(lora: LoRA) -> float:
    scale, largest = float(lora.scale[0]), 0.0
    for pair in lora.weights.values():
        a, b = np.asarray(pair["a"][0], np.float64), np.asarray(pair["b"][0], np.float64)
        of_a, of_b = np.square(a).sum(axis=-2), np.square(b).mean(axis=-1)  # of each rank, [L, (E,) R]
        largest = max(largest, float(np.max((of_a * of_b).sum(axis=-1))))
    return float(scale * largest**0.5)
