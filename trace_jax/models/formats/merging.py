"""Merges an adapter into its base, from files to files. It holds one tensor at a time and needs no accelerator."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trace_jax.errors import UserError
from trace_jax.models.formats.checkpoint import open_weights
from trace_jax.models.formats.config_json import CONFIG, config_from_json
from trace_jax.models.formats.huggingface import revision
from trace_jax.models.formats.json_files import read_json
from trace_jax.models.formats.parameters import parameters
from trace_jax.models.formats.peft import load_peft, recorded_base
from trace_jax.models.formats.writing import INDEX, Tensor, write_model

_COPIED = (".json", ".jinja", ".model", ".txt")  # tokenizer, chat template, generation settings, …


def merge_adapter(
    base: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write ``W + scale · a b`` for every weight W of the model in ``base`` that the PEFT adapter changes.

    The sum is formed in float32 and stored in the dtype of W. All other files of ``base`` are copied, among them its
    tokenizer and configuration. ``progress(done, total)`` is called after each tensor with the number of tensors.

    Raises:
        UserError: the adapter belongs to another base (an adapter records the path or the ``huggingface.revision`` of
            its base); the base or the adapter cannot be read; ``out`` is one of the two.
    """
    path = Path(base)
    if Path(out).resolve() in (path.resolve(), Path(adapter).resolve()):
        raise UserError(f"{out} is the base or the adapter itself: name another directory for the merged model")
    data = read_json(path / CONFIG)
    config = config_from_json(data, str(path / CONFIG))
    _refuse_foreign(path, Path(adapter))
    lora = load_peft(adapter, config)
    scale = float(lora.scale[0])
    weights = {
        target: {half: np.asarray(value[0]) for half, value in pair.items()} for target, pair in lora.weights.items()
    }
    files = open_weights(path, config)
    changed: dict[str, tuple[str, tuple[int, ...]]] = {}
    tensors: list[Tensor] = []
    for parameter in parameters(config):
        for position, name in np.ndenumerate(parameter.names):
            tensors.append(Tensor(name, parameter.tensor_shape, files.dtype(name)))
            if parameter.path[-1] in weights:
                changed[name] = parameter.path[-1], position
    done = 0

    def read(name: str) -> np.ndarray:
        nonlocal done
        value = files.read(name)
        if name in changed:
            target, position = changed[name]
            a, b = (weights[target][half][position].astype(np.float32) for half in "ab")
            value = (value.astype(np.float32) + scale * (a @ b).T).astype(value.dtype)
        done += 1
        progress(done, len(tensors))
        return value

    write_model(out, tensors, read, data, _other_files(path))


def _refuse_foreign(base: Path, adapter: Path) -> None:
    recorded = recorded_base(adapter)
    if recorded and Path(recorded).resolve() == base.resolve():
        return
    if recorded != (found := revision(base)):
        raise UserError(
            f"{adapter} was trained for base {recorded!r}, {base} has revision {found!r}: merge it into its own base, "
            "or write that revision into its adapter_config.json if they are the same model"
        )


def _other_files(path: Path) -> list[Path]:
    files = [file for file in path.iterdir() if file.is_file() and file.suffix in _COPIED]
    return sorted(file for file in files if file.name not in (CONFIG, INDEX))
